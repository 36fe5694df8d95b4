"""Which blobs go, and why others stay: by table."""

from __future__ import annotations

import pytest

from proxy.oci.names import Digest
from proxy.policy.eviction import Candidate, Rules, Verdict, choose

NOW = 1_800_000_000.0
HOUR = 3600.0
RULES = Rules(grace=600.0, max_age=0.0)


def candidate(name: str, idle: float, size: int = 10, *, pinned: bool = False, in_use: bool = False) -> Candidate:
    return Candidate(Digest.of(name.encode()), size, NOW - idle, pinned=pinned, in_use=in_use)


def verdicts(candidates: list[Candidate], wanted: int, rules: Rules = RULES) -> list[Verdict]:
    return [verdict for _, verdict in choose(candidates, wanted, NOW, rules)]


def test_as_many_go_as_are_needed_and_no_more() -> None:
    blobs = [candidate("a", 9 * HOUR), candidate("b", 8 * HOUR), candidate("c", 7 * HOUR)]

    assert verdicts(blobs, 0) == []
    assert verdicts(blobs, 1) == ["room"]
    assert verdicts(blobs, 10) == ["room"]
    assert verdicts(blobs, 11) == ["room", "room"]
    assert verdicts(blobs, 1000) == ["room", "room", "room"]


@pytest.mark.parametrize(
    ("why", "protected"),
    [
        ("in use", candidate("a", 9 * HOUR, in_use=True)),
        ("pinned", candidate("a", 9 * HOUR, pinned=True)),
        ("grace", candidate("a", 599.0)),
        ("grace", candidate("a", 0.0)),
        ("grace", candidate("a", -5.0)),
    ],
)
def test_what_is_protected_stays_and_the_next_one_goes(why: Verdict, protected: Candidate) -> None:
    assert verdicts([protected, candidate("b", HOUR)], 10) == [why, "room"]


def test_what_was_used_a_little_more_than_the_grace_ago_goes() -> None:
    assert verdicts([candidate("a", 600.0)], 10) == ["room"]


def test_a_time_far_ahead_is_of_a_wrong_clock_and_protects_nothing() -> None:
    assert verdicts([candidate("a", -30 * 24 * HOUR)], 10) == ["room"]


def test_what_is_too_old_goes_though_there_is_room() -> None:
    rules = Rules(grace=600.0, max_age=10 * HOUR)
    blobs = [candidate("a", 12 * HOUR), candidate("b", 11 * HOUR, pinned=True), candidate("c", 9 * HOUR)]

    assert verdicts(blobs, 0, rules) == ["age", "pinned"]
    assert verdicts(blobs, 15, rules) == ["age", "pinned", "room"]


def test_grace_is_stronger_than_age() -> None:
    assert verdicts([candidate("a", 500.0)], 0, Rules(grace=600.0, max_age=60.0)) == ["grace"]
