"""Every observation of a quota and every counted pull, of one account at one upstream, for a day and more.

What does not change is written down once a minute, what changes at most once a second: that is enough for a curve, and
a flood of HEADs costs no memory. Times are on the monotonic clock, in order; what an earlier process wrote down comes
in by `remember`, before all that was heard since.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, Literal, TypeVar

from proxy.policy.quota.purpose import Purpose

KEPT_SECONDS: Final = 24 * 3600.0
MAX_OBSERVATIONS: Final = 5000
MAX_SPENDS: Final = 20_000
REPEAT_SECONDS: Final = 60.0
SPACING_SECONDS: Final = 1.0

By = Literal["head", "get", "probe"]
"""What kind of request was answered with it."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What upstream said of the quota. `window` in seconds."""

    at: float
    limit: int | None
    remaining: int | None
    window: int | None
    source: str | None
    by: By

    def says_the_same(self, other: Observation) -> bool:
        """Whether nothing has changed but the time."""
        return (self.limit, self.remaining, self.window, self.source) == (
            other.limit,
            other.remaining,
            other.window,
            other.source,
        )


@dataclass(frozen=True, slots=True)
class Spend:
    """A counted pull: when it was answered, what it fetched, for whom."""

    at: float
    repository: str
    reference: str
    purpose: Purpose


E = TypeVar("E", Observation, Spend)


class Ledger:
    """The books of one account at one upstream."""

    def __init__(self) -> None:
        self.last: Observation | None = None
        """The last observation, written down or not."""
        self._observations: deque[Observation] = deque(maxlen=MAX_OBSERVATIONS)
        self._spends: deque[Spend] = deque(maxlen=MAX_SPENDS)
        self._unsaved_observations: list[Observation] = []
        self._unsaved_spends: list[Spend] = []
        self._fetched: set[tuple[str, str]] = set()
        self.since: float | None = None
        """From when on observations are of one and the same quota."""

    def observed(self, seen: Observation) -> None:
        """Upstream said this."""
        self.last = seen
        if self.since is None:
            self.since = seen.at
        self._tidy(seen.at)
        before = self._observations[-1] if self._observations else None
        if before is not None and seen.says_the_same(before) and seen.at - before.at < REPEAT_SECONDS:
            return
        if len(self._observations) > 1 and seen.at - self._observations[-2].at < SPACING_SECONDS:
            self._observations[-1] = seen
            if self._unsaved_observations:
                self._unsaved_observations[-1] = seen
                return
        else:
            self._observations.append(seen)
        self._unsaved_observations.append(seen)

    def spent(self, spend: Spend) -> None:
        """A counted pull was answered."""
        self._tidy(spend.at)
        self._spends.append(spend)
        self._unsaved_spends.append(spend)
        self._fetched.add((spend.repository, spend.reference))

    def begin(self, now: float) -> None:
        """What is heard from now on is of another quota: another account, address or limit."""
        self.since = now

    def remember(
        self,
        observations: Sequence[Observation],
        spends: Sequence[Spend],
        fetched: Iterable[tuple[str, str]],
        since: float | None,
    ) -> None:
        """What an earlier process wrote down, oldest first; `since` as it was then. `fetched` goes back further."""
        self._observations.extendleft(reversed(_newest(observations, MAX_OBSERVATIONS - len(self._observations))))
        self._spends.extendleft(reversed(_newest(spends, MAX_SPENDS - len(self._spends))))
        self._fetched.update(fetched)
        if self.last is None and observations:
            self.last = observations[-1]
            self.since = observations[0].at if since is None else since

    def take_unsaved(self) -> tuple[list[Observation], list[Spend]]:
        """What was not taken yet, for whoever writes it to disk."""
        taken = self._unsaved_observations, self._unsaved_spends
        self._unsaved_observations, self._unsaved_spends = [], []
        return taken

    def give_back(self, observations: list[Observation], spends: list[Spend]) -> None:
        """It could not be written."""
        self._unsaved_observations = (observations + self._unsaved_observations)[-MAX_OBSERVATIONS:]
        self._unsaved_spends = (spends + self._unsaved_spends)[-MAX_SPENDS:]

    def observations(self, since: float) -> list[Observation]:
        """Those from then on, oldest first."""
        return _from(self._observations, since)

    def spends(self, since: float) -> list[Spend]:
        """Those from then on, oldest first."""
        return _from(self._spends, since)

    def has_fetched(self, repository: str, reference: str) -> bool:
        """Whether this cost a pull before, as far as is remembered."""
        return (repository, reference) in self._fetched

    def history(self, now: float, points: int) -> list[tuple[float, int]]:
        """When and what `remaining` was in the time that is kept, oldest first: so many points at most."""
        known = [(each.at, each.remaining) for each in self.observations(now - KEPT_SECONDS)]
        told = [(at, remaining) for at, remaining in known if remaining is not None]
        if len(told) <= points:
            return told
        step = (len(told) - 1) / (points - 1)
        return [told[round(number * step)] for number in range(points)]

    def _tidy(self, now: float) -> None:
        old = now - KEPT_SECONDS
        while self._observations and self._observations[0].at < old:
            self._observations.popleft()
        while self._spends and self._spends[0].at < old:
            self._spends.popleft()
        if len(self._fetched) > 2 * MAX_SPENDS:
            self._fetched = {(each.repository, each.reference) for each in self._spends}


def _from(entries: deque[E], since: float) -> list[E]:
    """The newest entries back to that moment, oldest first."""
    found = list(takewhile(lambda each: each.at >= since, reversed(entries)))
    found.reverse()
    return found


def _newest(entries: Sequence[E], count: int) -> Sequence[E]:
    return entries[max(0, len(entries) - count) :]
