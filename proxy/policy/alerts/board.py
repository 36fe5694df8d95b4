"""Which alerts stand, and which of them somebody has still to be told of.

    nothing -> pending -> standing -> over -> nothing

What is pending for as long as its rule says stands; then somebody is told, once, and again every `repeat` seconds while
it stands. What is over is kept until that was told too. So there is no queue beside the alerts themselves: what could
not be told stays due, the newest state of an alert takes the place of the one before, and what stands outlives the
process: `state` before its end, `restore` after the start of the next.

An alert of an earlier process is told to nobody again, and not ended either until this one had time to see it too
(`Rule.believed`), for after a start nothing was heard yet of upstreams. That time is given once, however often the
program is started; what an earlier process could not tell is due at once.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from proxy.policy.alerts.facts import Alert, Facts, Labels
from proxy.policy.alerts.rules import RULES, Rule
from proxy.policy.alerts.trends import Trends

MOST: Final = 100
"""Alerts at a time; more are dropped."""
ATTEMPTS: Final = 8
"""How often it is tried to tell of an alert before that is given up."""
AGAIN_SECONDS: Final = 15 * 60.0
"""What was given up is tried again after so long if it still stands."""

_RULES: Final = {rule.name: rule for rule in RULES}
_LAST_MOMENT: Final = 253_402_300_800.0
_Key = tuple[str, Labels]


@dataclass(slots=True)
class _Entry:
    """One alert."""

    alert: Alert
    retry_at: float
    """When it may be told, if it was not told as it is now."""
    told: float | None = None
    told_at: float | None = None
    """When that was done, on the monotonic clock and of the epoch."""
    believed_until: float | None = None
    """Until when (epoch) it stands though this process has not seen it; None once it has."""
    attempts: int = 0

    def is_due(self, now: float, repeat: float) -> bool:
        if self.believed_until is not None:
            return False
        return now >= self.retry_at if self.told is None else 0 < repeat <= now - self.told

    def is_believed(self, time: float) -> bool:
        """Not for longer than from the start on, so that a clock that is set back makes no alert eternal."""
        return self.believed_until is not None and 0 < self.believed_until - time <= _RULES[self.alert.name].believed


class Board:
    """Synchronous. `now` is on the monotonic clock, `time` of the epoch."""

    def __init__(self) -> None:
        self.dropped = 0
        """Alerts that there was no room for."""
        self._trends = Trends()
        self._pending: dict[_Key, float] = {}
        self._homeless: set[_Key] = set()
        self._entries: dict[_Key, _Entry] = {}

    def standing(self) -> list[Alert]:
        """What is wrong now."""
        return [entry.alert for entry in self._entries.values() if entry.alert.ended_at is None]

    def look(self, facts: Facts, now: float, time: float, ignored: Collection[str] = ()) -> None:
        """Take note of how things are now. Alerts with `ignored` names do not arise, and end."""
        self._trends.look(facts, now)
        seen: set[_Key] = set()
        for rule in RULES:
            if rule.name not in ignored:
                for labels, summary in rule.find(facts, self._trends, now):
                    seen.add((rule.name, labels))
                    self._see(rule, labels, summary, now, time)
        self._pending = {key: since for key, since in self._pending.items() if key in seen}
        self._homeless &= seen
        for key, entry in self._entries.items():
            if key in seen or entry.alert.ended_at is not None:
                continue
            if entry.alert.name in ignored or not entry.is_believed(time):
                self._entries[key] = _Entry(replace(entry.alert, ended_at=time), retry_at=now)

    def take_for_granted(self, facts: Facts) -> None:
        """What was counted until now is no news."""
        self._trends.take_for_granted(facts)

    def due(self, now: float, repeat: float) -> list[Alert]:
        """What is to be told now, the oldest first; what stands is told again every `repeat` seconds, 0 for once."""
        found = [entry.alert for entry in self._entries.values() if entry.is_due(now, repeat)]
        return sorted(found, key=lambda alert: alert.ended_at or alert.started_at)

    def told(self, alerts: Iterable[Alert], now: float, time: float) -> None:
        """Somebody knows of these now, as they were when they were due."""
        for entry in self._unchanged(alerts):
            if entry.alert.ended_at is not None:
                del self._entries[entry.alert.key]
            else:
                entry.told, entry.told_at, entry.attempts = now, time, 0

    def failed(self, alerts: Iterable[Alert], now: float, *, hopeless: bool = False) -> int:
        """It could not be told of these. How many are given up: after ATTEMPTS, or at once where it is `hopeless`."""
        given_up = 0
        for entry in self._unchanged(alerts):
            entry.attempts += 1
            if entry.attempts < ATTEMPTS and not hopeless:
                continue
            given_up += 1
            if entry.alert.ended_at is not None:
                del self._entries[entry.alert.key]
            else:
                entry.told, entry.retry_at, entry.attempts = None, now + AGAIN_SECONDS, 0
        return given_up

    def hurry(self, now: float) -> None:
        """Who is told has changed: what was given up is due now."""
        for entry in self._entries.values():
            entry.retry_at, entry.attempts = now, 0

    def state(self) -> str:
        """What outlives the process."""
        return json.dumps([_row(entry) for entry in self._entries.values()])

    def restore(self, text: str | None, now: float, time: float) -> None:
        """What an earlier process has left; what is none of that, and alerts that there are no more, are left out."""
        try:
            entries = [_entry(row, now, time) for row in json.loads(text or "[]") if row["name"] in _RULES]
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return
        for entry in entries[:MOST]:
            self._entries.setdefault(entry.alert.key, entry)

    def _see(self, rule: Rule, labels: Labels, summary: str, now: float, time: float) -> None:
        key = rule.name, labels
        since = self._pending.setdefault(key, now)
        entry = self._entries.get(key)
        if entry is not None and entry.alert.ended_at is None:
            entry.alert = replace(entry.alert, summary=summary)
            entry.believed_until = None
        elif now - since >= rule.after:
            if entry is None and len(self._entries) >= MOST:
                self.dropped += key not in self._homeless
                self._homeless.add(key)
                return
            alert = Alert(rule.name, rule.severity, labels, summary, rule.description, time)
            self._entries[key] = _Entry(alert, retry_at=now)

    def _unchanged(self, alerts: Iterable[Alert]) -> Iterator[_Entry]:
        """The entries of those that are still as they were."""
        for alert in alerts:
            entry = self._entries.get(alert.key)
            if entry is not None and (entry.alert.started_at, entry.alert.ended_at) == (
                alert.started_at,
                alert.ended_at,
            ):
                yield entry


def _row(entry: _Entry) -> dict[str, Any]:
    alert = entry.alert
    return {
        "name": alert.name,
        "labels": alert.labels,
        "summary": alert.summary,
        "started_at": alert.started_at,
        "ended_at": alert.ended_at,
        "told_at": entry.told_at,
        "believed_until": entry.believed_until,
    }


def _entry(row: Mapping[str, Any], now: float, time: float) -> _Entry:
    """Raises ValueError, TypeError or LookupError for what is none."""
    rule = _RULES[row["name"]]
    labels = tuple((str(name), str(value)) for name, value in row["labels"])
    started_at, ended_at = _moment(row["started_at"]), _time(row["ended_at"])
    alert = Alert(rule.name, rule.severity, labels, str(row["summary"]), rule.description, started_at, ended_at)
    told_at, until = _time(row["told_at"]), _time(row["believed_until"])
    if ended_at is None and until is None:
        until = time + rule.believed
    told = None if told_at is None else now - max(0.0, time - told_at)
    return _Entry(alert, now, told, told_at, until)


def _time(value: Any) -> float | None:
    return None if value is None else _moment(value)


def _moment(value: Any) -> float:
    """Seconds since the epoch that a calendar has, or ValueError."""
    if not 0 <= float(value) < _LAST_MOMENT:
        raise ValueError
    return float(value)
