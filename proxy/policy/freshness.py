"""When a tag's stored answer may be used without asking upstream (RFC 9111 section 4; PROTOCOL 8.5, 8.11).

A digest is never stale. A tag is fresh for `freshness.tags` after upstream last confirmed it. Ages are taken from the
wall clock, since they outlive the process; a clock that was set back makes a tag stale, never fresh for longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from proxy.oci.manifests import Descriptor

REVALIDATION_PATIENCE_SECONDS: Final = 2.0
"""How long a client waits for a revalidation of something we hold, before it gets the stale answer."""


@dataclass(frozen=True, slots=True)
class StoredTag:
    """What we know of a tag: where it points, where it pointed before, and when upstream last said so (epoch)."""

    target: Descriptor
    previous: Descriptor | None
    checked_at: float

    def moved(self, target: Descriptor, now: float, *, target_held: bool) -> StoredTag:
        """The tag after upstream confirmed `target`. What it pointed to is kept if we hold it: it can answer stale."""
        if target.digest == self.target.digest:
            return StoredTag(target, self.previous, now)
        return StoredTag(target, self.target if target_held else self.previous, now)


class Freshness(Enum):
    """What to do about a tag."""

    FRESH = "fresh"
    STALE = "stale"
    MISS = "miss"


def decide(stored: StoredTag | None, now: float, window: float) -> Freshness:
    """Whether a tag may be answered from what is stored; `window` in seconds."""
    if stored is None:
        return Freshness.MISS
    return Freshness.FRESH if 0 <= now - stored.checked_at < window else Freshness.STALE


def age(stored: StoredTag, now: float) -> int:
    """Whole seconds since upstream confirmed this, for the Age header."""
    return max(0, int(now - stored.checked_at))
