"""All that is known of the quota of one account at one upstream, whichever process or configuration heard it.

Upstream's words come in here, and whoever decides reads here. A response without a limit says nothing of one that was
heard before, since sponsored repositories are sent none; only where no limit is in force, or the question was the probe
(whose repository has the limit), does it mean an account without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Final, Literal

from proxy.policy.quota.forecast import Forecast, forecast
from proxy.policy.quota.gates import Limits
from proxy.policy.quota.governor import Level, Rules
from proxy.policy.quota.headers import Quota, read_quota, read_source
from proxy.policy.quota.leak import DEFAULT_WINDOW_SECONDS, Leak
from proxy.policy.quota.ledger import By, Ledger, Observation, Spend
from proxy.policy.quota.purpose import Purpose

ANONYMOUS: Final = "anonymous"
FORECAST_SECONDS: Final = 1.0

Kind = Literal["limited", "unlimited", "unknown"]


class Account:
    """One account, or nobody's, at one upstream. Synchronous; times are on the monotonic clock."""

    def __init__(self, upstream: str, user: str | None = None, limits: Limits | None = None) -> None:
        self.upstream = upstream
        self.user = user
        self.limits = limits or Limits()
        self.ledger = Ledger()
        self.leak = Leak()
        self.last_heard: float | None = None
        """When a manifest was last answered, with or without a limit."""
        self.unlimited = False
        self.subject: tuple[str, str] | None = None
        """A repository and reference that upstream told a limit with."""
        self.pulls = 0
        """Counted pulls since the start of this process."""
        self._level = Level.PLENTY
        self._forecast: tuple[object, float, Forecast] | None = None

    def __repr__(self) -> str:
        return f"<Account {self.name} at {self.upstream}>"

    @property
    def name(self) -> str:
        """The user name, or `anonymous`."""
        return self.user or ANONYMOUS

    def heard(self, headers: Mapping[str, str], by: By, now: float, subject: tuple[str, str] | None = None) -> None:
        """A manifest was answered, and not refused, with these headers."""
        self.last_heard = now
        quota = read_quota(headers, now)
        source = read_source(headers)
        if quota is None:
            if source is not None and (by == "probe" or not self._in_force(now)):
                self._unlimited(source, by, now)
            return
        seen = Observation(now, quota.limit, quota.remaining, quota.window, quota.source, by)
        self._begin_anew(seen, now)
        self.unlimited = False
        self.subject = subject or self.subject
        self.limits.observe(headers, now)
        self.ledger.observed(seen)
        if seen.remaining is not None and seen.limit is not None:
            self.leak.observed(seen.remaining, seen.limit, seen.window, now)

    def spent(self, repository: str, reference: str, purpose: Purpose, now: float) -> None:
        """A counted pull was answered."""
        self.pulls += 1
        self.ledger.spent(Spend(now, repository, reference, purpose))
        self.leak.spent(now)

    def remember(
        self,
        observations: Sequence[Observation],
        spends: Sequence[Spend],
        fetched: Iterable[tuple[str, str]],
        now: float,
    ) -> None:
        """What an earlier process heard and spent, oldest first. What was heard since stands."""
        same = list(takewhile(lambda each: _same_quota(each, observations[-1]), reversed(observations)))
        self.ledger.remember(observations, spends, fetched, same[-1].at if same else None)
        last = self.ledger.last
        if last is None or self.last_heard is not None:
            return
        self.last_heard = last.at
        self.unlimited = last.limit is None and last.remaining is None
        if not self.unlimited:
            self.limits.quota = Quota(last.limit, last.remaining, last.window, last.source, last.at)
        if not self._in_force(now):
            self.limits.forget_quota()

    def kind(self, now: float) -> Kind:
        """Whether there is a limit, as far as is known."""
        if self._in_force(now):
            return "limited"
        return "unlimited" if self.unlimited else "unknown"

    def level(self, rules: Rules, now: float) -> Level:
        """How much is left."""
        quota = self.limits.quota
        if self.limits.pulls_refused_for(now) is not None:
            self._level = Level.EXHAUSTED
        elif quota is None or not self._in_force(now):
            self._level = Level.PLENTY
        else:
            self._level = rules.level(quota.limit, quota.remaining, self._level)
        return self._level

    def forecast(self, now: float) -> Forecast:
        """What is to be expected; worked out at most once a second, since every refusal asks."""
        closed, unlimited = self.limits.pulls_refused_for(now) is not None, self.kind(now) == "unlimited"
        state = (self.ledger.last, self.pulls, closed, unlimited)
        if self._forecast is None or self._forecast[0] != state or not 0 <= now - self._forecast[1] < FORECAST_SECONDS:
            found = forecast(self.ledger, self.leak, now, unlimited=unlimited, closed=closed)
            self._forecast = state, now, found
        return self._forecast[2]

    def _in_force(self, now: float) -> bool:
        """Whether a limit was heard of, no longer ago than its window."""
        quota = self.limits.quota
        return quota is not None and now - quota.observed_at <= (quota.window or DEFAULT_WINDOW_SECONDS)

    def _unlimited(self, source: str, by: By, now: float) -> None:
        self._begin_anew(Observation(now, None, None, None, source, by), now)
        self.unlimited = True
        self.limits.forget_quota()
        self.ledger.observed(Observation(now, None, None, None, source, by))

    def _begin_anew(self, seen: Observation, now: float) -> None:
        """Counts of another account, address or limit cannot be compared."""
        last = self.ledger.last
        if last is not None and not _same_quota(last, seen):
            self.leak.reset()
            self.ledger.begin(now)


def _same_quota(one: Observation, other: Observation) -> bool:
    """Whether the counts of both can be compared."""
    return (one.source, one.limit) == (other.source, other.limit)
