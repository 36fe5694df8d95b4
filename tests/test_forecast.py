"""When a quota is used up, and how sure that is: a table of days, and the words for them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from proxy.policy.quota.forecast import Forecast, forecast
from proxy.policy.quota.leak import Leak
from proxy.policy.quota.ledger import Ledger, Observation, Spend
from proxy.policy.quota.purpose import NOBODY, Purpose
from proxy.policy.quota.words import forecast_text, period

MINUTE, HOUR = 60.0, 3600.0
NOW = 1_000_000.0
WINDOW = 21600


class Day:
    """What was heard and pulled until NOW; times in minutes before it."""

    def __init__(self, limit: int | None = 100, watched: float = 180) -> None:
        self.limit = limit
        self.ledger, self.leak = Ledger(), Leak()
        self.left = limit or 0
        self.watched = watched

    def pulls(self, minutes: Iterable[float], weight: float = 1.0, step: int = 1) -> Day:
        used = 0.0
        self.tell(self.watched, self.left)
        for minute in sorted(minutes, reverse=True):
            used += weight
            self.ledger.spent(Spend(NOW - minute * MINUTE, "r", "d", Purpose(NOBODY, "new")))
            self.leak.spent(NOW - minute * MINUTE)
            self.tell(minute, self.left - int(used) // step * step)
        return self

    def tell(self, minute: float, remaining: int | None) -> Day:
        at = NOW - minute * MINUTE
        self.ledger.observed(Observation(at, self.limit, remaining, WINDOW, "id", "get"))
        if remaining is not None and self.limit is not None:
            self.leak.observed(remaining, self.limit, WINDOW, at)
        return self

    def forecast(self, **flags: bool) -> Forecast:
        return forecast(self.ledger, self.leak, NOW, **flags)


def hours(moment: float | None) -> float | None:
    return None if moment is None else round((moment - NOW) / HOUR, 2)


def test_nothing_heard_is_unknown() -> None:
    assert Day().forecast() == Forecast("unknown")
    assert Day(limit=None).tell(10, 5).forecast() == Forecast("unknown")
    assert Day().tell(10, None).forecast() == Forecast("unknown")


def test_no_limit_is_no_forecast() -> None:
    assert Day().forecast(unlimited=True) == Forecast("unlimited")


def test_what_was_heard_longer_ago_than_the_window_is_unknown() -> None:
    assert Day(watched=900).tell(WINDOW / 60 + 1, 3).forecast() == Forecast("unknown")


def test_nothing_left_is_exhausted_since_it_was_first_heard() -> None:
    day = Day().tell(60, 3).tell(40, 0).tell(10, 0)

    found = day.forecast()

    assert found.state == "exhausted"
    assert found.exhausted_at == NOW - 40 * MINUTE
    assert found.returns_latest == NOW - 60 * MINUTE + WINDOW


def test_a_refusal_counts_more_than_what_headers_said() -> None:
    assert Day().tell(10, 50).forecast(closed=True).state == "exhausted"
    assert Day().forecast(closed=True) == Forecast("exhausted")


def test_a_quota_that_nobody_uses_is_steady() -> None:
    found = Day().tell(180, 100).tell(0, 100).forecast()

    assert (found.state, found.per_second, found.returns_at) == ("steady", 0.0, None)


def test_little_that_was_seen_is_too_little_to_say() -> None:
    assert Day(watched=3).tell(3, 100).forecast().state == "too-little"
    assert Day(watched=20).pulls([10, 5]).forecast().state == "too-little"


def test_a_steady_rate_says_when_it_ends_and_how_sure_that_is() -> None:
    """One pull a minute for half an hour: 70 are left, for 70 minutes."""
    found = Day(watched=30).pulls(range(30)).forecast()

    assert found.state == "falling"
    assert found.per_second == pytest.approx(1 / 60)
    assert hours(found.exhausted_at) == pytest.approx(70 / 60, abs=0.02)
    assert 0.8 < (hours(found.earliest) or 0) < 1.1
    assert 1.4 < (hours(found.latest) or 0) < 2.0


def test_a_rate_that_the_window_outlasts_is_steady_and_says_that_it_may_not_be() -> None:
    """Twelve an hour are 72 in a window of 100; a little more would be too many."""
    found = Day(watched=180).pulls(range(0, 180, 5)).forecast()

    assert found.state == "steady"
    assert found.earliest is not None
    assert found.exhausted_at is None


@pytest.mark.parametrize("step", [1, 5, 10])
def test_a_step_of_the_counter_is_not_a_rate(step: int) -> None:
    """Ten pulls in half an hour, told at once in the last minute: 20 an hour, and not 600."""
    found = Day(watched=30).pulls([3 * number for number in range(10)], step=step).forecast()

    assert (found.per_second or 0) * HOUR == pytest.approx(20)


def test_an_upstream_that_counts_every_second_pull_lasts_twice_as_long() -> None:
    full = Day(watched=30).pulls(range(30)).forecast()
    half = Day(watched=30).pulls(range(30), weight=0.5).forecast()

    assert full.exhausted_at is not None and half.exhausted_at is not None
    assert (half.exhausted_at - NOW) / (full.exhausted_at - NOW) == pytest.approx(2 * 85 / 70, rel=0.1)


def test_what_others_pull_uses_it_up_as_well() -> None:
    day = Day(watched=30).tell(30, 100)
    for minute in range(29, 0, -1):
        day.tell(minute, 100 - 2 * (30 - minute))

    found = day.forecast()

    assert found.state == "falling"
    assert (found.per_second or 0) * HOUR == pytest.approx(116, rel=0.1)


def test_a_lump_that_others_used_says_less_than_as_many_one_by_one() -> None:
    """Forty at once, ten minutes ago: that may come again soon, or never."""
    found = Day(watched=30).tell(30, 100).tell(10, 60).tell(0, 60).forecast()

    assert found.state == "falling"
    assert (hours(found.earliest) or 0) < 0.5 * (hours(found.exhausted_at) or 0)
    assert found.latest is None


def test_what_was_pulled_first_comes_back_first() -> None:
    found = Day(watched=330).pulls([320, 200, 25, 20, 15, 10]).forecast()

    assert found.returns_at == NOW - 320 * MINUTE + WINDOW


def test_what_comes_back_in_time_is_reckoned_with() -> None:
    """Fifty come back within the hour, so that 20 that are left last longer than the rate alone says."""
    day = Day(watched=355)
    found = day.pulls([350 - number / 2 for number in range(50)] + [number for number in range(30)]).forecast()

    assert found.exhausted_at is None or hours(found.exhausted_at) is None or (hours(found.exhausted_at) or 0) > 1
    assert (hours(found.earliest) or 0) < 0.4


def clock(moment: float) -> str:
    minutes = round((moment - NOW) / MINUTE)
    return f"{12 + minutes // 60:02d}:{minutes % 60:02d}"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (Forecast("unknown"), "nothing was heard of a limit"),
        (Forecast("unlimited"), "no limit is sent for this account"),
        (Forecast("too-little"), "too little is known of the rate"),
        (Forecast("steady", 0.0, 1800), "nothing was used in the last 30 minutes"),
        (Forecast("steady", 0.1, 7200), "not used up at the rate of the last 2 hours"),
        (
            Forecast("steady", 0.1, 1800, earliest=NOW + 2 * HOUR),
            "not used up at the rate of the last 30 minutes, though it could be from 14:00 on",
        ),
        (
            Forecast("falling", 0.1, 1800, NOW + HOUR, NOW + 1800, NOW + 2 * HOUR, NOW + 600),
            "at the rate of the last 30 minutes, used up at about 13:00, between 12:30 and 14:00; "
            "some comes back from about 12:10 on",
        ),
        (
            Forecast("falling", 0.1, 1800, NOW + HOUR, NOW + 1800),
            "at the rate of the last 30 minutes, used up at about 13:00, at 12:30 at the earliest, "
            "and perhaps not at all",
        ),
        (Forecast("exhausted", returns_latest=NOW + HOUR), "used up; some comes back by 13:00 at the latest"),
        (Forecast("exhausted"), "used up"),
    ],
)
def test_a_forecast_is_said_in_plain_words(said: Forecast, text: str) -> None:
    assert forecast_text(said, clock) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "minute"), (300, "5 minutes"), (1800, "30 minutes"), (7200, "2 hours"), (21600, "6 hours")],
)
def test_periods_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert period(seconds) == text
