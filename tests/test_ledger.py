"""The books of an account: what is written down, for how long, and what an earlier process left."""

from __future__ import annotations

from proxy.policy.quota.ledger import (
    KEPT_SECONDS,
    MAX_OBSERVATIONS,
    MAX_SPENDS,
    REPEAT_SECONDS,
    Ledger,
    Observation,
    Spend,
)
from proxy.policy.quota.purpose import Asker, Purpose

NOW = 1_000_000.0
PURPOSE = Purpose(Asker("10.0.0.7", "docker"), "new")


def seen(at: float, remaining: int | None = 90) -> Observation:
    return Observation(at, 100, remaining, 21600, "id", "head")


def spend(at: float, repository: str = "docker.io/library/alpine", reference: str = "sha256:aa") -> Spend:
    return Spend(at, repository, reference, PURPOSE)


def test_what_does_not_change_is_written_down_once_a_minute() -> None:
    ledger = Ledger()

    for second in range(int(2 * REPEAT_SECONDS) + 1):
        ledger.observed(seen(NOW + second))

    assert [each.at - NOW for each in ledger.observations(NOW)] == [0, REPEAT_SECONDS, 2 * REPEAT_SECONDS]
    assert ledger.last == seen(NOW + 2 * REPEAT_SECONDS)


def test_what_changes_at_once_is_written_down_once_a_second() -> None:
    ledger = Ledger()

    for number in range(1000):
        ledger.observed(seen(NOW + number / 100, number))

    written = ledger.observations(NOW)
    assert 10 <= len(written) <= 13
    assert written[-1].remaining == 999


def test_books_are_kept_for_a_day() -> None:
    ledger = Ledger()
    ledger.observed(seen(NOW, 90))
    ledger.spent(spend(NOW))

    ledger.observed(seen(NOW + KEPT_SECONDS + 1, 89))
    ledger.spent(spend(NOW + KEPT_SECONDS + 1))

    assert [each.remaining for each in ledger.observations(0.0)] == [89]
    assert len(ledger.spends(0.0)) == 1


def test_books_do_not_grow_without_bound() -> None:
    ledger = Ledger()

    for number in range(MAX_SPENDS + 10):
        ledger.spent(spend(NOW + number / 1000, reference=f"sha256:{number}"))
    for number in range(MAX_OBSERVATIONS + 10):
        ledger.observed(seen(NOW + number * 2, number % 100))

    assert len(ledger.spends(0.0)) <= MAX_SPENDS
    assert len(ledger.observations(0.0)) <= MAX_OBSERVATIONS


def test_the_history_has_so_many_points_and_both_ends() -> None:
    ledger = Ledger()
    for number in range(1000):
        ledger.observed(seen(NOW + number * 60, number))
    ledger.observed(seen(NOW + 60_000, None))

    history = ledger.history(NOW + 60_000, 500)

    assert len(history) == 500
    assert (history[0], history[-1]) == ((NOW, 0), (NOW + 59_940, 999))
    assert history == sorted(history)


def test_what_was_fetched_before_is_known() -> None:
    ledger = Ledger()
    ledger.spent(spend(NOW, "docker.io/a", "sha256:aa"))

    assert ledger.has_fetched("docker.io/a", "sha256:aa")
    assert not ledger.has_fetched("docker.io/b", "sha256:aa")


def test_what_an_earlier_process_wrote_comes_before_what_was_heard_since() -> None:
    ledger = Ledger()
    ledger.observed(seen(NOW, 80))
    ledger.spent(spend(NOW))

    ledger.remember(
        [seen(NOW - 600, 90), seen(NOW - 300, 85)], [spend(NOW - 400)], {("docker.io/old", "sha256:bb")}, 1.0
    )

    assert [each.remaining for each in ledger.observations(0.0)] == [90, 85, 80]
    assert [each.at for each in ledger.spends(0.0)] == [NOW - 400, NOW]
    assert ledger.has_fetched("docker.io/old", "sha256:bb")
    assert (ledger.last, ledger.since) == (seen(NOW, 80), NOW)


def test_what_an_earlier_process_heard_stands_until_something_is_heard() -> None:
    ledger = Ledger()

    ledger.remember([seen(NOW - 600, 90), seen(NOW - 300, 85)], [], (), NOW - 600)

    assert (ledger.last, ledger.since) == (seen(NOW - 300, 85), NOW - 600)
    assert ledger.take_unsaved() == ([], [])


def test_an_earlier_process_that_left_too_much_displaces_nothing_new() -> None:
    ledger = Ledger()
    ledger.spent(spend(NOW))

    ledger.remember([], [spend(NOW - MAX_SPENDS + number) for number in range(MAX_SPENDS)], (), None)

    assert len(ledger.spends(0.0)) == MAX_SPENDS
    assert ledger.spends(NOW) == [spend(NOW)]


def test_what_was_written_is_taken_once_and_can_be_given_back() -> None:
    ledger = Ledger()
    ledger.observed(seen(NOW))
    ledger.spent(spend(NOW))

    taken = ledger.take_unsaved()
    ledger.spent(spend(NOW + 1))
    ledger.give_back(*taken)

    assert taken == ([seen(NOW)], [spend(NOW)])
    assert ledger.take_unsaved() == ([seen(NOW)], [spend(NOW), spend(NOW + 1)])
    assert ledger.take_unsaved() == ([], [])
