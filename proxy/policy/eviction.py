"""Which blobs go when room is needed or they have grown old, and why others stay.

What was used longest ago goes first, and manifests go after everything else: they are small, and cost a counted pull.
Clients do not fall back for blobs, so what was used in the last `grace` seconds stays whatever the need; who uses a
manifest uses its whole image. A blob that is in use stays, and so does what a pinned repository names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from proxy.oci.names import Digest

Verdict = Literal["room", "age", "in use", "pinned", "grace"]
"""Why a blob goes: its room is needed, or its age; or why it stays although one of the two asks for it."""

GOES: frozenset[Verdict] = frozenset({"room", "age"})


@dataclass(frozen=True, slots=True)
class Rules:
    """Both in seconds; a `max_age` of 0 is none."""

    grace: float
    max_age: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored blob; `size` in bytes, `used_at` since the epoch."""

    digest: Digest
    size: int
    used_at: float
    manifest: bool = False
    pinned: bool = False
    in_use: bool = False


def choose(
    candidates: Iterable[Candidate], wanted: int, now: float, rules: Rules
) -> Iterator[tuple[Candidate, Verdict]]:
    """The verdict on each, until `wanted` bytes are had and nothing after is too old.

    Candidates come in the order of their last use.
    """
    for candidate in candidates:
        verdict = _judge(candidate, wanted, now, rules)
        if verdict is None:
            return
        if verdict in GOES:
            wanted -= candidate.size
        yield candidate, verdict


def _judge(candidate: Candidate, wanted: int, now: float, rules: Rules) -> Verdict | None:
    """None: nothing asks for it, nor for any that was used later."""
    idle = now - candidate.used_at
    aged = 0 < rules.max_age < idle
    if wanted <= 0 and not aged:
        return None
    if candidate.in_use:
        return "in use"
    if candidate.pinned:
        return "pinned"
    if abs(idle) < rules.grace:  # A time far ahead is of a clock that was wrong: it protects nothing.
        return "grace"
    return "age" if aged else "room"
