"""When an upstream that cannot be asked is left alone: the breaker's states, with the clock as a number."""

from __future__ import annotations

import pytest

from proxy.policy.breaker import FAILURES, FIRST_SECONDS, MAX_SECONDS, PROBE_SECONDS, Breaker

NO_JITTER = 0.5


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        fail(breaker, at)
    return breaker


def fail(breaker: Breaker, at: float, chance: float = NO_JITTER) -> None:
    breaker.failed(at, chance, probe=breaker.admit())


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        fail(breaker, 0.0)
        assert breaker.refuses(0.0) is None
    fail(breaker, 0.0)

    assert breaker.is_open
    assert breaker.refuses(0.0) == breaker.open_for(0.0) == FIRST_SECONDS


def test_any_answer_begins_the_row_anew() -> None:
    breaker = Breaker()
    for _ in range(3):
        for _ in range(FAILURES - 1):
            fail(breaker, 0.0)
        breaker.answered()

    assert (breaker.is_open, breaker.open_for(0.0), breaker.refuses(0.0)) == (False, None, None)


def test_half_open_lets_one_question_pass_at_a_time() -> None:
    breaker = opened()
    now = FIRST_SECONDS

    assert breaker.refuses(now - 0.25) == 0.25
    assert breaker.refuses(now) is None
    assert breaker.admit()
    assert (breaker.refuses(now), breaker.open_for(now)) == (PROBE_SECONDS, 0.0)

    breaker.answered()
    assert breaker.refuses(now) is None
    assert not breaker.admit()


def test_a_probe_that_is_given_up_leaves_its_place_to_the_next() -> None:
    breaker = opened()
    breaker.left(probe=breaker.admit())

    assert breaker.refuses(FIRST_SECONDS) is None
    assert breaker.admit()


def test_a_question_that_is_given_up_before_it_opened_takes_nothing_from_the_probe() -> None:
    breaker = opened()
    assert breaker.admit()
    breaker.left(probe=False)

    assert breaker.refuses(FIRST_SECONDS) == PROBE_SECONDS


def test_the_pause_doubles_while_probes_fail_up_to_a_bound_and_begins_anew_after_an_answer() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(8):
        pause = breaker.refuses(now)
        assert pause is not None
        pauses.append(pause)
        now += pause
        fail(breaker, now)
    breaker.answered()
    for _ in range(FAILURES):
        fail(breaker, now)

    assert pauses == [1, 2, 4, 8, 16, MAX_SECONDS, MAX_SECONDS, MAX_SECONDS]
    assert breaker.refuses(now) == FIRST_SECONDS


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 0.75), (1.0, 1.25)])
def test_a_pause_is_jittered(chance: float, seconds: float) -> None:
    breaker = Breaker()
    for _ in range(FAILURES):
        fail(breaker, 100.0, chance)

    assert breaker.refuses(100.0) == seconds


def test_jitter_never_leads_beyond_the_bound() -> None:
    breaker = opened()
    for _ in range(10):
        fail(breaker, 1000.0, 1.0)

    assert breaker.refuses(1000.0) == MAX_SECONDS


def test_what_was_asked_before_it_opened_neither_lengthens_the_pause_nor_ends_the_probe() -> None:
    breaker = opened(at=10.0)
    breaker.failed(10.5, NO_JITTER, probe=False)
    assert breaker.refuses(10.5) == FIRST_SECONDS - 0.5

    assert breaker.admit()
    breaker.failed(12.0, NO_JITTER, probe=False)
    assert breaker.refuses(12.0) == PROBE_SECONDS


def test_a_late_answer_to_what_was_asked_before_closes_it() -> None:
    breaker = opened()
    breaker.answered()

    assert (breaker.is_open, breaker.refuses(0.0)) == (False, None)


def test_a_probe_that_fails_after_another_answer_came_is_one_failure_of_many() -> None:
    breaker = opened()
    probe = breaker.admit()
    breaker.answered()
    breaker.failed(5.0, NO_JITTER, probe=probe)

    assert breaker.refuses(5.0) is None
