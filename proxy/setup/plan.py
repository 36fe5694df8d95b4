"""Whether a file that is there may be changed, and to what."""

from __future__ import annotations

from proxy.setup.daemon_json import merged
from proxy.setup.errors import Refused
from proxy.setup.guide import MARK, Part, Way


def content_for(part: Part, mirror: str, current: str | None, *, force: bool) -> str:
    """What the file must hold; what it holds already if that is right. Raises Refused."""
    if current is None:
        return part.content
    if part.way is Way.MERGE:
        return merged(current, mirror)
    if current == part.content or current.startswith(f"{MARK}\n"):
        return part.content
    if part.way is Way.OURS_ONLY:
        raise Refused(
            "it was not made by pullthrough; add to it by hand what `pullthrough setup` prints, or move it away"
        )
    if not force:
        raise Refused("it was not made by pullthrough; --force replaces it and keeps a backup beside it")
    return part.content
