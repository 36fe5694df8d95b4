"""Who may be given what (DESIGN promise 2; PROTOCOL 8.4).

An open listener cannot know who asks, so it gives only what anybody could pull from upstream: repositories that an
anonymous client may pull are public, all others private. `access.private = "deny"` refuses private ones, `"serve"`
gives them to whoever reaches the listener.

What was found out is remembered for `access.remember` if public, and for a few minutes if private, so that a
repository that is opened up is soon served. When it cannot be found out again (upstream is down), what was last known
stands; what was never known is not served.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

PRIVATE_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Visibility:
    """Whether an anonymous client may pull a repository, and when (epoch) upstream was asked."""

    public: bool
    checked_at: float


class Admission(Enum):
    """What to do about a request for a repository."""

    SERVE = "serve"
    DENY = "deny"
    ASK = "ask"
    """Find out first whether the repository is public."""


def decide(private: Literal["deny", "serve"], known: Visibility | None, now: float, remember: float) -> Admission:
    """Whether a repository may be served; `remember` in seconds."""
    if private == "serve":
        return Admission.SERVE
    if known is None:
        return Admission.ASK
    lasts = remember if known.public else min(remember, PRIVATE_SECONDS)
    if not 0 <= now - known.checked_at < lasts:
        return Admission.ASK
    return decide_unasked(known)


def decide_unasked(known: Visibility | None) -> Admission:
    """The decision when upstream cannot be asked: what was last known, and nothing without knowledge."""
    if known is None:
        return Admission.ASK
    return Admission.SERVE if known.public else Admission.DENY
