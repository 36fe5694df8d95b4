"""Which alerts stand, and who is told of them when: decisions without a receiver."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.policy.alerts import NAMES, RULES, Alert, Board, Facts, UpstreamFacts
from proxy.policy.alerts.board import AGAIN_SECONDS, ATTEMPTS, MOST
from proxy.units import parse_duration

FILE = Path(__file__).parent.parent / "config" / "prometheus" / "pullthrough.rules.yml"
MINUTE = 60.0
HOUR = 3600.0
DAY = 86400.0
REPEAT = 4 * HOUR


class Watched:
    """A board, and clocks that the test sets."""

    def __init__(self) -> None:
        self.board = Board()
        self.now = 500.0
        self.boot = 1_800_000_000.0
        self.repeat = REPEAT

    @property
    def time(self) -> float:
        return self.boot + self.now

    def look(self, facts: Facts, *, after: float = 0.0, ignored: tuple[str, ...] = ()) -> None:
        """Time passes, then things are so."""
        self.now += after
        self.board.look(facts, self.now, self.time, ignored)

    def alerts(self) -> list[Alert]:
        """What is to be told now."""
        return self.board.due(self.now, self.repeat)

    def due(self) -> list[tuple[str, str]]:
        return [(alert.name, "firing" if alert.ended_at is None else "over") for alert in self.alerts()]

    def tell(self) -> list[tuple[str, str]]:
        """Tell what is due."""
        due = self.due()
        self.board.told(self.alerts(), self.now, self.time)
        return due

    def fail(self, *, hopeless: bool = False) -> int:
        """It does not arrive."""
        return self.board.failed(self.alerts(), self.now, hopeless=hopeless)

    def restart(self, *, after: float = 10.0) -> None:
        """The program ends, and is started on another boot of the machine."""
        state, time = self.board.state(), self.time + after
        self.board, self.now = Board(), 3.0
        self.boot = time - self.now
        self.board.restore(state, self.now, self.time)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def hub(**facts: Any) -> Facts:
    """One upstream."""
    return Facts(upstreams=(UpstreamFacts(name="docker.io", account="alice", **facts),))


FINE = hub(limit=100, remaining=50)
EMPTY = hub(limit=100, remaining=0)
REFUSED = hub(credentials_rejected=True)
BAD_CONTENT = Facts(integrity_failures={"opened": 0, "scrub": 1})

# The rules


def test_the_alerts_are_those_of_prometheus() -> None:
    assert {*NAMES, "PullthroughDown"} == set(written())
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_an_alert_says_the_same_and_waits_as_long_as_in_prometheus(rule: Any) -> None:
    text = written()[rule.name]
    waits = re.search(r"\bfor: (\w+)", text)
    (severity,) = re.findall(r"severity: (\w+)", text)
    (description,) = re.findall(r"description: (?:>-\s+|\")(.*?)\"?\s*\Z", text, re.DOTALL)

    assert rule.after == (parse_duration(waits[1]) if waits else 0.0)
    assert rule.severity == severity
    assert rule.description == " ".join(description.split())


def written() -> dict[str, str]:
    """The alerts of the file, by name."""
    _, *blocks = re.split(r"^\s+- alert: ", FILE.read_text(), flags=re.MULTILINE)
    return {block.split()[0]: block for block in blocks}


@pytest.mark.parametrize(
    ("name", "wrong", "summary", "labels"),
    [
        ("PullQuotaLow", hub(limit=100, remaining=9), "docker.io: 9% of the pull quota is left", "upstream account"),
        ("PullQuotaExhausted", EMPTY, "docker.io: the pull quota of alice is used up", "upstream account"),
        (
            "PullQuotaUsedUpSoon",
            hub(exhausted_seconds=1800.0),
            "docker.io: at this rate the pull quota is used up in 30 minutes",
            "upstream",
        ),
        (
            "PullQuotaBypassSuspected",
            hub(bypass_suspected=True),
            "docker.io: somebody pulls with this account or address and not through the cache",
            "upstream",
        ),
        ("UpstreamRefusesCredentials", REFUSED, "docker.io refuses the configured credentials", "upstream"),
        (
            "UpstreamUnreachable",
            hub(breaker_open=True),
            "docker.io could not be asked several times in a row",
            "upstream",
        ),
    ],
)
def test_what_is_wrong_for_long_enough_stands_until_it_is_right(
    watched: Watched, name: str, wrong: Facts, summary: str, labels: str
) -> None:
    (rule,) = (rule for rule in RULES if rule.name == name)
    watched.look(wrong)
    watched.look(wrong, after=rule.after - 1)
    assert watched.board.standing() == []

    watched.look(wrong, after=1)
    (alert,) = watched.board.standing()
    assert (alert.name, alert.summary, alert.severity) == (name, summary, rule.severity)
    assert " ".join(label for label, _ in alert.labels) == labels
    assert (alert.started_at, alert.ended_at) == (watched.time, None)
    assert watched.tell() == [(name, "firing")]

    watched.look(FINE, after=100)
    assert watched.board.standing() == []
    assert [each.ended_at for each in watched.alerts()] == [watched.time]
    assert watched.tell() == [(name, "over")]
    assert watched.due() == []


@pytest.mark.parametrize(
    ("name", "before", "wrong", "window"),
    [
        ("UpstreamRequestLimitReached", hub(limited=4), hub(limited=5), 15 * MINUTE),
        ("ImageVanishedUpstream", hub(vanished=4), hub(vanished=5), HOUR),
        ("PullthroughIntegrityFailure", Facts(), BAD_CONTENT, HOUR),
    ],
)
def test_what_was_counted_stands_for_a_while(
    watched: Watched, name: str, before: Facts, wrong: Facts, window: float
) -> None:
    watched.board.take_for_granted(before)
    watched.look(before)
    assert watched.due() == []
    watched.look(wrong, after=5)
    assert watched.tell() == [(name, "firing")]
    watched.look(wrong, after=window - 1)
    assert watched.due() == []
    watched.look(wrong, after=1)
    assert watched.tell() == [(name, "over")]


def test_what_was_counted_before_the_first_look_counts(watched: Watched) -> None:
    watched.look(BAD_CONTENT)
    assert [alert.summary for alert in watched.board.standing()] == ["stored content was found bad or missing (scrub)"]


def test_a_cache_that_stays_full_stands(watched: Watched) -> None:
    for count in range(1, 20):
        watched.look(Facts(not_stored=count), after=MINUTE)
    assert watched.tell() == [("PullthroughDiskFull", "firing")]
    watched.look(Facts(not_stored=19), after=15 * MINUTE + 1)
    assert watched.tell() == [("PullthroughDiskFull", "over")]


def test_one_blob_that_found_no_room_is_no_alert(watched: Watched) -> None:
    for _ in range(20):
        watched.look(Facts(not_stored=1), after=MINUTE)
    assert watched.due() == []


def test_what_is_right_in_between_begins_anew(watched: Watched) -> None:
    watched.look(REFUSED)
    watched.look(FINE, after=30)
    watched.look(REFUSED, after=30)
    watched.look(REFUSED, after=59)
    assert watched.due() == []
    watched.look(REFUSED, after=1)
    assert watched.due() == [("UpstreamRefusesCredentials", "firing")]


def test_an_unknown_quota_is_no_alert(watched: Watched) -> None:
    for facts in (hub(), hub(limit=100), hub(remaining=5)):
        watched.look(facts)
        watched.look(facts, after=HOUR)
    assert watched.due() == []


def test_a_quota_that_is_used_up_is_not_low_too(watched: Watched) -> None:
    watched.look(EMPTY)
    watched.look(EMPTY, after=HOUR)
    assert watched.due() == [("PullQuotaExhausted", "firing")]


def test_upstreams_have_alerts_of_their_own(watched: Watched) -> None:
    both = Facts(upstreams=(*EMPTY.upstreams, UpstreamFacts(name="ghcr.io", limit=10, remaining=0)))
    watched.look(both)
    watched.look(both, after=MINUTE)
    assert watched.tell() == [("PullQuotaExhausted", "firing")] * 2
    watched.look(EMPTY, after=5)
    (alert,) = watched.alerts()
    assert alert.labels == (("upstream", "ghcr.io"), ("account", "anonymous"))


def test_an_alert_that_is_ignored_does_not_arise_and_ends(watched: Watched) -> None:
    watched.look(BAD_CONTENT, ignored=("PullthroughIntegrityFailure",))
    assert watched.due() == []
    watched.look(BAD_CONTENT)
    assert watched.tell() == [("PullthroughIntegrityFailure", "firing")]
    watched.look(BAD_CONTENT, after=5, ignored=("PullthroughIntegrityFailure",))
    assert watched.tell() == [("PullthroughIntegrityFailure", "over")]


# The hit ratio


class Traffic:
    """Manifests that clients ask for, each minute some."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._hits = self._misses = 0

    def pass_by(self, seconds: float, hits: int, misses: int) -> None:
        """So many of both a minute."""
        for _ in range(int(seconds / MINUTE)):
            self._hits += hits
            self._misses += misses
            self._watched.look(self.facts, after=MINUTE)

    @property
    def facts(self) -> Facts:
        sums = {"manifest": self._hits}, {"manifest": self._misses}
        return Facts(requests={"manifest": self._hits + self._misses}, hits=sums[0], misses=sums[1])


def test_a_hit_ratio_that_falls_below_half_of_the_day_before_is_an_alert_until_it_is_back(watched: Watched) -> None:
    traffic = Traffic(watched)
    traffic.pass_by(DAY, hits=8, misses=2)
    traffic.pass_by(2 * HOUR, hits=5, misses=5)
    assert watched.due() == []

    traffic.pass_by(2 * HOUR, hits=1, misses=9)
    (alert,) = watched.alerts()
    assert (alert.name, alert.labels) == ("PullthroughHitRatioFell", (("kind", "manifest"),))
    assert re.fullmatch(r"the hit ratio of manifests fell to \d\d(\.\d+)?%", alert.summary)
    assert watched.tell() == [("PullthroughHitRatioFell", "firing")]

    traffic.pass_by(HOUR, hits=8, misses=2)
    assert watched.tell() == [("PullthroughHitRatioFell", "over")]


@pytest.mark.parametrize(
    "then",
    [
        lambda traffic: traffic.pass_by(3 * HOUR, hits=0, misses=0),
        lambda traffic: [traffic.pass_by(HOUR, 0, 0), traffic.pass_by(MINUTE, 0, 20), traffic.pass_by(2 * HOUR, 0, 0)],
        lambda traffic: traffic.pass_by(3 * HOUR, hits=5, misses=5),
    ],
    ids=["nobody asks", "few ask", "half of it at most is lost"],
)
def test_a_hit_ratio_that_says_little_is_no_alert(watched: Watched, then: Callable[[Traffic], object]) -> None:
    traffic = Traffic(watched)
    traffic.pass_by(DAY, hits=8, misses=2)
    then(traffic)
    assert watched.due() == []


def test_a_cold_cache_has_no_hit_ratio_that_could_fall(watched: Watched) -> None:
    traffic = Traffic(watched)
    traffic.pass_by(45 * MINUTE, hits=9, misses=1)
    traffic.pass_by(14 * MINUTE, hits=0, misses=10)
    assert watched.due() == []


# Who is told when


@pytest.fixture
def standing(watched: Watched) -> Watched:
    """Credentials are refused, and nobody was told yet."""
    watched.look(REFUSED)
    watched.look(REFUSED, after=MINUTE)
    return watched


NAME = "UpstreamRefusesCredentials"


def test_what_stands_is_told_once_and_again_after_a_while(standing: Watched) -> None:
    assert standing.tell() == [(NAME, "firing")]
    standing.look(REFUSED, after=REPEAT - 1)
    assert standing.due() == []
    standing.look(REFUSED, after=1)
    assert standing.tell() == [(NAME, "firing")]
    assert standing.due() == []


def test_what_stands_is_told_only_once_when_that_is_wanted(standing: Watched) -> None:
    standing.repeat = 0.0
    assert standing.tell() == [(NAME, "firing")]
    standing.look(REFUSED, after=100 * DAY)
    assert standing.due() == []


def test_the_newest_state_takes_the_place_of_one_that_was_not_told(standing: Watched) -> None:
    standing.look(FINE, after=5)
    assert standing.due() == [(NAME, "over")]
    standing.look(REFUSED, after=5)
    standing.look(REFUSED, after=MINUTE)
    assert standing.due() == [(NAME, "firing")]
    assert len(standing.board.standing()) == 1


def test_an_alert_that_has_ended_while_it_was_told_is_still_told_to_be_over(standing: Watched) -> None:
    on_the_way = standing.alerts()
    standing.look(FINE, after=5)
    standing.board.told(on_the_way, standing.now, standing.time)
    assert standing.tell() == [(NAME, "over")]


def test_what_did_not_arrive_stays_due_and_is_given_up_in_the_end_for_a_while(standing: Watched) -> None:
    assert [standing.fail() for _ in range(ATTEMPTS)] == [*[0] * (ATTEMPTS - 1), 1]
    assert standing.due() == []
    standing.look(REFUSED, after=AGAIN_SECONDS - 1)
    assert standing.due() == []
    standing.look(REFUSED, after=1)
    assert [standing.fail(), standing.due()] == [0, [(NAME, "firing")]]


def test_what_was_given_up_is_due_when_somebody_else_is_told(standing: Watched) -> None:
    assert standing.fail(hopeless=True) == 1
    assert standing.due() == []
    standing.board.hurry(standing.now)
    assert standing.due() == [(NAME, "firing")]


def test_what_is_over_is_given_up_for_good(standing: Watched) -> None:
    standing.tell()
    standing.look(FINE, after=5)
    assert standing.fail(hopeless=True) == 1
    standing.look(FINE, after=DAY)
    assert standing.due() == []


def test_there_are_not_more_alerts_than_there_is_room_for(watched: Watched) -> None:
    many = Facts(
        upstreams=tuple(
            UpstreamFacts(name=f"r{number}.example", credentials_rejected=True) for number in range(MOST + 7)
        )
    )
    watched.look(many)
    for _ in range(3):
        watched.look(many, after=MINUTE)
    assert (len(watched.alerts()), watched.board.dropped) == (MOST, 7)
    watched.look(FINE, after=5)
    watched.tell()
    watched.look(many)
    watched.look(many, after=MINUTE)
    assert watched.board.dropped == 14


# Restarts


def test_a_restart_tells_nothing_again(standing: Watched) -> None:
    standing.tell()
    started_at = standing.board.standing()[0].started_at
    standing.restart()
    standing.look(hub())
    standing.look(REFUSED, after=MINUTE)
    assert standing.due() == []
    assert [alert.started_at for alert in standing.board.standing()] == [started_at]

    standing.look(REFUSED, after=REPEAT - MINUTE - 11)
    assert standing.due() == []
    standing.look(REFUSED, after=1)
    assert standing.due() == [(NAME, "firing")]


def test_an_alert_of_an_earlier_process_ends_when_nobody_sees_it_any_more(standing: Watched) -> None:
    standing.tell()
    standing.restart(after=3 * DAY)
    standing.look(FINE, after=15 * MINUTE - 1)
    assert standing.due() == []
    standing.look(FINE, after=1)
    assert standing.tell() == [(NAME, "over")]


def test_however_often_the_program_is_started_the_time_to_see_it_again_is_given_once(standing: Watched) -> None:
    standing.tell()
    for _ in range(10):
        assert standing.due() == []
        standing.restart(after=MINUTE)
        standing.look(FINE, after=40.0)
    assert standing.due() == [(NAME, "over")]


def test_an_alert_that_is_seen_again_after_a_restart_ends_as_any_other(standing: Watched) -> None:
    standing.tell()
    standing.restart()
    standing.look(REFUSED, after=5)
    standing.look(FINE, after=5)
    assert standing.due() == [(NAME, "over")]


def test_what_an_earlier_process_could_not_tell_is_told(standing: Watched) -> None:
    standing.restart()
    standing.look(hub(), after=5)
    assert standing.due() == []
    standing.look(REFUSED, after=5)
    assert standing.tell() == [(NAME, "firing")]
    standing.look(FINE, after=5)
    standing.restart()
    assert standing.tell() == [(NAME, "over")]
    assert standing.board.state() == "[]"


def test_an_alert_that_is_ignored_since_the_restart_ends_at_once(standing: Watched) -> None:
    standing.tell()
    standing.restart()
    standing.look(REFUSED, ignored=(NAME,))
    assert standing.due() == [(NAME, "over")]


def test_an_alert_that_there_is_no_more_is_left_out_and_others_stay(standing: Watched) -> None:
    state = json.loads(standing.board.state())
    standing.board = Board()
    standing.board.restore(json.dumps([{"name": "GoneSince"}, *state]), standing.now, standing.time)
    assert [alert.name for alert in standing.board.standing()] == [NAME]


def test_a_clock_that_is_set_back_makes_no_alert_eternal(standing: Watched) -> None:
    standing.tell()
    standing.restart()
    standing.boot -= 300 * DAY
    standing.look(FINE, after=5)
    assert standing.due() == [(NAME, "over")]


@pytest.mark.parametrize(
    "state",
    [
        *("", "nonsense", "{}", "[1]", "[{}]", "null", "[" * 5000, '[{"name": "GoneSince"}]'),
        '[{"name": "PullQuotaLow", "labels": 5, "summary": "", "started_at": 1, "ended_at": null}]',
        json.dumps(
            [{**dict.fromkeys(("told_at", "ended_at", "believed_until")), "name": "PullQuotaLow", "labels": []}]
        ),
        '[{"name": "PullQuotaLow", "labels": [], "summary": "", "started_at": NaN, "ended_at": null, "told_at": null,'
        ' "believed_until": null}]',
    ],
)
def test_a_state_that_is_none_is_no_state(watched: Watched, state: str) -> None:
    watched.board.restore(state, watched.now, watched.time)
    watched.look(FINE)
    assert watched.board.state() == "[]"
