"""What a test may set on the hub at any time."""

from collections.abc import Callable
from dataclasses import dataclass, field

ANONYMOUS = "anonymous"


@dataclass(eq=False)
class Settings:
    """The hub's switches; the next request sees a change."""

    username: str = "alice"
    pat: str = field(default="dckr_pat_test", repr=False)
    public_read_only: bool = False  # the PAT's level: no right to private repositories
    login_attempts: int = 5  # wrong passwords until a username is locked

    service: str = "registry.docker.io"
    realm: str = ""  # set to the token server's URL when the hub starts
    expires_in: int = 300

    rate_limit: tuple[int, int] | None = (100, 21600)  # pulls and seconds; None: an account without limit
    rolls: Callable[[], float] | None = None  # a clock by which each pull comes back a window after it was made
    retry_after: int | str | None = None  # sent with the pull limit's 429; Docker Hub was never seen to send one

    direct_blobs: bool = False  # the registry sends blobs itself, without a redirect
    redirect_heads: bool = True  # HEAD on a blob is redirected, as GET is
    url_lifetime: int = 3000
    identity_only: bool = True  # the CDN refuses other encodings, a mistake of ours; the real one does not

    page_limit: int | None = None  # the most entries in one page of a list, whatever was asked for
    absolute_links: bool = False  # Link headers name the next page by a whole URL
