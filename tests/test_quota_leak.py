"""Whether somebody else pulls: falls of the counter that our own pulls do not explain."""

from __future__ import annotations

import pytest

from proxy.policy.quota.descent import SETTLED_SECONDS, Descent
from proxy.policy.quota.leak import LATE_SECONDS, Leak

NOW = 1_000_000.0
WINDOW = 21600


class Hub:
    """A counter of 200 pulls, of which both we and others take some; what it tells may lag behind, in steps."""

    def __init__(self, leak: Leak, step: int = 1, weight: float = 1.0) -> None:
        self.leak, self.step, self.weight = leak, step, weight
        self.now, self.used = NOW, 0.0
        self.tell()

    def tell(self, limit: int = 200) -> None:
        told = int(self.used) // self.step * self.step
        self.leak.observed(limit - told, limit, WINDOW, self.now)

    def we_pull(self, count: int = 1, every: float = 10.0) -> None:
        for _ in range(count):
            self.now += every
            self.used += self.weight
            self.tell()
            self.leak.spent(self.now)

    def others_pull(self, count: int) -> None:
        self.used += count
        self.now += 10
        self.tell()


@pytest.mark.parametrize("step", [1, 2, 5, 10])
@pytest.mark.parametrize("every", [1.0, 60.0, 120.0])
def test_our_own_pulls_are_nobody_elses_however_the_counter_steps(step: int, every: float) -> None:
    leak = Leak()

    Hub(leak, step).we_pull(150, every)

    assert leak.unexplained(NOW + 150 * every) == 0
    assert not leak.is_suspected(NOW + 150 * every)


def test_an_answer_that_tells_of_the_pull_before_we_counted_it_is_no_leak() -> None:
    leak = Leak()
    leak.observed(200, 200, WINDOW, NOW)
    leak.observed(195, 200, WINDOW, NOW + 1)  # A HEAD, while five GETs are on their way.

    for number in range(5):
        leak.spent(NOW + 2 + number)

    assert leak.unexplained(NOW + 10) == 0


def test_a_pull_pays_late_for_its_own_fall_only() -> None:
    leak = Leak()
    leak.observed(200, 200, WINDOW, NOW)
    leak.observed(195, 200, WINDOW, NOW + 1)

    leak.spent(NOW + 2 + LATE_SECONDS)

    assert leak.unexplained(NOW + 2 + LATE_SECONDS) == 5


@pytest.mark.parametrize(("others", "suspected"), [(1, False), (10, False), (11, True), (60, True)])
def test_a_twentieth_of_the_limit_unexplained_is_suspicious(others: int, suspected: bool) -> None:
    leak = Leak()
    hub = Hub(leak)

    hub.we_pull(20)
    hub.others_pull(others)

    assert leak.unexplained(hub.now) == others
    assert leak.is_suspected(hub.now) is suspected


def test_a_slow_leak_adds_up() -> None:
    leak = Leak()
    hub = Hub(leak)

    for _ in range(12):
        hub.we_pull(3)
        hub.others_pull(1)

    assert leak.unexplained(hub.now) == 12
    assert leak.is_suspected(hub.now)


def test_an_upstream_that_counts_every_second_pull_hides_a_leak_only_for_a_while() -> None:
    leak = Leak()
    hub = Hub(leak, weight=0.5)

    hub.we_pull(100)
    hub.others_pull(40)

    assert leak.unexplained(hub.now) == 20  # A tenth of the limit is believed to be ours.
    assert leak.is_suspected(hub.now)


def test_an_episode_ends_with_the_window() -> None:
    leak = Leak()
    hub = Hub(leak)
    hub.others_pull(40)
    assert leak.is_suspected(hub.now)

    assert leak.unexplained(hub.now + WINDOW) == 0
    assert not leak.is_suspected(hub.now + WINDOW)


def test_an_episode_does_not_flicker_at_the_threshold() -> None:
    leak = Leak()
    hub = Hub(leak)
    hub.others_pull(5)
    hub.now += 100
    hub.others_pull(6)
    assert leak.is_suspected(hub.now)

    assert leak.is_suspected(NOW + WINDOW + 50)  # Six are left: more than half of what began it.


def test_what_servers_disagree_about_is_counted_once() -> None:
    leak = Leak()
    for number in range(100):
        leak.observed(95 if number % 2 else 93, 100, WINDOW, NOW + number)

    assert leak.unexplained(NOW + 100) == 0


def test_what_the_window_gives_back_is_no_fall_when_it_is_used_again() -> None:
    leak = Leak()
    hub = Hub(leak)
    hub.we_pull(50)
    hub.used -= 30
    hub.tell()
    hub.now += SETTLED_SECONDS + 1
    hub.tell()

    hub.we_pull(10)

    assert leak.unexplained(hub.now) == 0


def test_another_account_or_limit_is_a_new_beginning() -> None:
    leak = Leak()
    leak.observed(200, 200, WINDOW, NOW)

    leak.reset()
    leak.observed(40, 100, WINDOW, NOW + 1)

    assert leak.unexplained(NOW + 1) == 0


def test_what_an_earlier_process_noticed_is_still_unexplained() -> None:
    before, after = Leak(), Leak()
    Hub(before).others_pull(40)
    after.observed(160, 200, WINDOW, NOW + 60)

    after.restore(before.falls(NOW))

    assert after.unexplained(NOW + 60) == 40
    assert after.is_suspected(NOW + 60)


@pytest.mark.parametrize(
    ("told", "falls"),
    [
        ([(0, 100), (1, 99), (2, 99), (3, 90)], [0, 1, 0, 9]),
        ([(0, 100), (1, 110), (2, 100)], [0, 0, 0]),
        ([(0, 100), (1, 110), (400, 105), (401, 100)], [0, 0, 5, 5]),
        ([(0, 90), (1000, 100), (2000, 95)], [0, 0, 5]),
        ([(0, 95), (200, 95), (400, 97), (401, 95), (402, 93)], [0, 0, 0, 0, 2]),
    ],
)
def test_only_a_new_low_is_a_fall_and_a_rise_is_believed_when_it_lasts(
    told: list[tuple[float, int]], falls: list[int]
) -> None:
    descent = Descent()

    assert [descent.fall(NOW + at, remaining) for at, remaining in told] == falls
