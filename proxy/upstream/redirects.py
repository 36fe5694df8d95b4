"""Where a redirect may lead (PROTOCOL 3, 8.9): pure, so that every rule stands in a table of the tests."""

from __future__ import annotations

import re
from typing import Final

from yarl import URL

from proxy.oci.errors import Unavailable

MAX_REDIRECTS: Final = 5
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_PRINTABLE: Final = re.compile(r"\A[\x21-\x7e]+\Z")


def origin(url: URL) -> tuple[str, str | None, int | None]:
    """Scheme, host and port (RFC 6454), with the port that the scheme implies."""
    return url.scheme, url.raw_host, url.port


def redirect_target(upstream: str, url: URL, location: str | None) -> URL:
    """The URL that a Location seen at `url` names, exactly as written: a signature in it survives no other quoting.

    From https it leads to https only. Raises Unavailable, without a word of the Location.
    """
    try:
        target = url.join(URL(location or "", encoded=True)) if _PRINTABLE.match(location or "") else URL()
        usable = target.scheme in ("http", "https") and bool(target.raw_host) and target.port and target.user is None
    except ValueError:
        usable = False
    if not usable:
        raise Unavailable(f"{upstream}: a redirect to nowhere")
    if url.scheme == "https" and target.scheme != "https":
        raise Unavailable(f"{upstream}: a redirect from https to http")
    return target
