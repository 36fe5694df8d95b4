"""How careful to be with what is left of a quota, and with what: the table in proxy/policy/quota/governor.py."""

from __future__ import annotations

import pytest

from proxy.oci.names import Repository
from proxy.policy.quota.governor import MAX_WINDOW_SECONDS, Decision, Level, Priority, Rules
from proxy.policy.quota.purpose import Need

PASS, SAVE, WAIT = Decision.PASS, Decision.SAVE, Decision.WAIT
RULES = Rules(important=("library/*",), unimportant=("ci/*",))


@pytest.mark.parametrize(
    ("remaining", "level"),
    [
        (100, Level.PLENTY),
        (31, Level.PLENTY),
        (30, Level.CAREFUL),
        (11, Level.CAREFUL),
        (10, Level.TIGHT),
        (6, Level.TIGHT),
        (5, Level.RESERVE),
        (1, Level.RESERVE),
        (0, Level.EXHAUSTED),
        (None, Level.PLENTY),
    ],
)
def test_the_level_is_by_the_share_that_is_left(remaining: int | None, level: Level) -> None:
    assert RULES.level(100, remaining) is level


def test_without_a_limit_there_is_plenty() -> None:
    assert RULES.level(None, 3) is Level.PLENTY
    assert RULES.level(None, None) is Level.PLENTY
    assert RULES.level(None, 0) is Level.EXHAUSTED


def test_without_important_repositories_there_is_no_reserve() -> None:
    assert Rules().level(100, 3) is Level.TIGHT


def test_a_level_is_left_upwards_only_by_a_margin() -> None:
    assert RULES.level(100, 31, was=Level.CAREFUL) is Level.CAREFUL
    assert RULES.level(100, 33, was=Level.CAREFUL) is Level.PLENTY
    assert RULES.level(100, 7, was=Level.RESERVE) is Level.RESERVE
    assert RULES.level(100, 90, was=Level.EXHAUSTED) is Level.PLENTY
    assert RULES.level(100, 3, was=Level.EXHAUSTED) is Level.RESERVE


@pytest.mark.parametrize(
    ("level", "priority", "changed", "cold", "begun"),
    [
        (Level.PLENTY, Priority.IMPORTANT, PASS, PASS, PASS),
        (Level.PLENTY, Priority.ORDINARY, PASS, PASS, PASS),
        (Level.PLENTY, Priority.UNIMPORTANT, PASS, PASS, PASS),
        (Level.CAREFUL, Priority.IMPORTANT, PASS, PASS, PASS),
        (Level.CAREFUL, Priority.ORDINARY, PASS, PASS, PASS),
        (Level.CAREFUL, Priority.UNIMPORTANT, SAVE, PASS, PASS),
        (Level.TIGHT, Priority.IMPORTANT, PASS, PASS, PASS),
        (Level.TIGHT, Priority.ORDINARY, SAVE, PASS, PASS),
        (Level.TIGHT, Priority.UNIMPORTANT, SAVE, WAIT, PASS),
        (Level.RESERVE, Priority.IMPORTANT, PASS, PASS, PASS),
        (Level.RESERVE, Priority.ORDINARY, SAVE, WAIT, PASS),
        (Level.RESERVE, Priority.UNIMPORTANT, SAVE, WAIT, PASS),
        (Level.EXHAUSTED, Priority.IMPORTANT, SAVE, WAIT, WAIT),
        (Level.EXHAUSTED, Priority.ORDINARY, SAVE, WAIT, WAIT),
        (Level.EXHAUSTED, Priority.UNIMPORTANT, SAVE, WAIT, WAIT),
    ],
)
def test_what_is_done_about_a_counted_pull(
    level: Level, priority: Priority, changed: Decision, cold: Decision, begun: Decision
) -> None:
    needs: tuple[Need, ...] = ("changed", "cold", "begun")

    assert [RULES.decide(level, priority, need) for need in needs] == [changed, cold, begun]


def test_a_governor_that_is_switched_off_decides_nothing() -> None:
    rules = Rules(enabled=False)

    assert rules.decide(Level.EXHAUSTED, Priority.ORDINARY, "cold") is PASS
    assert rules.window(300, Level.TIGHT, Priority.ORDINARY) == 300
    assert rules.level(100, 3) is Level.PLENTY


@pytest.mark.parametrize(
    ("configured", "level", "window"),
    [
        (300, Level.PLENTY, 300),
        (300, Level.CAREFUL, 600),
        (300, Level.TIGHT, 1800),
        (300, Level.RESERVE, 1800),
        (300, Level.EXHAUSTED, 300),
        (1800, Level.TIGHT, MAX_WINDOW_SECONDS),
        (7200, Level.TIGHT, 7200),
        (0, Level.TIGHT, 0),
    ],
)
def test_windows_stretch_and_not_without_bound(configured: float, level: Level, window: float) -> None:
    assert RULES.window(configured, level, Priority.ORDINARY) == window
    assert RULES.window(configured, level, Priority.IMPORTANT) == configured


@pytest.mark.parametrize(
    ("name", "registry", "priority"),
    [
        ("alpine", "docker.io", Priority.IMPORTANT),
        ("acme/app", "docker.io", Priority.ORDINARY),
        ("ci/job", "docker.io", Priority.UNIMPORTANT),
        ("acme/base", "ghcr.io", Priority.IMPORTANT),
        ("acme/base", "docker.io", Priority.ORDINARY),
    ],
)
def test_patterns_are_of_names_with_or_without_the_registry(name: str, registry: str, priority: Priority) -> None:
    rules = Rules(important=("library/*", "ghcr.io/acme/*"), unimportant=("ci/*", "library/*"))

    assert rules.priority(Repository.parse(name, registry)) is priority
