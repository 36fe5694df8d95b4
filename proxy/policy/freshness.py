"""When a tag's stored answer may be used without asking upstream (RFC 9111 section 4; PROTOCOL 8.5, 8.11).

A digest is never stale. A tag is fresh for `freshness.tags` after upstream last confirmed it, and for a minute at most
after a fallback did in upstream's stead: then upstream itself is asked first again. Ages are taken from the
wall clock, since they outlive the process; a clock that was set back makes a tag stale, never fresh for longer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from proxy.oci.manifests import Descriptor

REVALIDATION_PATIENCE_SECONDS: Final = 2.0
"""How long a client waits for a revalidation of something we hold, before it gets the stale answer."""
FALLBACK_SECONDS: Final = 60.0
"""The longest for which a fallback's word is used: it may lag behind the upstream that it stands in for."""


@dataclass(frozen=True, slots=True)
class StoredTag:
    """What we know of a tag: where it points, where it pointed before, and when upstream last said so (epoch).

    `source` names the fallback that said it in upstream's stead; None is upstream itself.
    """

    target: Descriptor
    previous: Descriptor | None
    checked_at: float
    source: str | None = None

    def moved(self, said: StoredTag, *, target_held: bool) -> StoredTag:
        """The tag after what was just said. What it pointed to before is kept if we hold it: it can answer stale."""
        if said.target.digest == self.target.digest or not target_held:
            return replace(said, previous=self.previous)
        return replace(said, previous=self.target)


class Freshness(Enum):
    """What to do about a tag."""

    FRESH = "fresh"
    STALE = "stale"
    MISS = "miss"


def decide(stored: StoredTag | None, now: float, window: float) -> Freshness:
    """Whether a tag may be answered from what is stored; `window` in seconds."""
    if stored is None:
        return Freshness.MISS
    return Freshness.FRESH if 0 <= now - stored.checked_at < lasts(stored.source, window) else Freshness.STALE


def lasts(source: str | None, window: float) -> float:
    """Seconds for which a tag is fresh after `source` spoke: a fallback, or (None) upstream itself."""
    return window if source is None else min(window, FALLBACK_SECONDS)


def age(stored: StoredTag, now: float) -> int:
    """Whole seconds since upstream confirmed this, for the Age header."""
    return max(0, int(now - stored.checked_at))


def serves_more(previous: frozenset[str] | None, target: frozenset[str] | None) -> bool:
    """Whether what a tag pointed to before is the better answer while nothing can be fetched.

    Given are the platforms whose manifests we hold; None is an image of one platform, which is whole. Who asks for a
    tag does not say for which platform: so the image that is here for more of them breaks fewer pulls.
    """
    return previous is not None and target is not None and len(previous) > len(target)
