"""The documents of /api/quota and /api/top, for the dashboard, for `pullthrough top` and for scripts.

/api/quota, times in seconds since the epoch; what is not known is null, never 0:

    now, started_at, accounted_since
    governor   {enabled, careful, tight, reserve, important, unimportant, wait_seconds}   shares of the limit, 0 to 1
    upstreams  [{upstream, account, limit, remaining, window_seconds, source, observed_at,
                 observed_by    head, get or probe
                 kind           limited, unlimited (an account that is sent no limit) or unknown
                 level          plenty, careful, tight, reserve or exhausted
                 forecast       {state, text, rate_per_hour, measured_over_seconds, exhausted_at, low, high, returns_at,
                                returns_latest}; state is unknown, unlimited, too-little, steady, falling or exhausted
                 history        [[at, remaining], ...] oldest first, of a day
                 pulls_last_hour, pulls_last_day, unexplained, bypass_suspected, waiting
                 gates          {pulls_closed_seconds, requests_closed_seconds}
                 saved          {since_start, ever}, each {pulls, bytes, stale_answers, outages}
                 decisions      {pass, saved, stretched, waited, refused}, since the start
                 spenders       {images, clients}, each [{name, pulls}, ...] of a day}]
    events     [{at, upstream, kind, text}, ...] newest first; see `events.Kind`

/api/top:

    now, by, order, period_seconds, rows [{name, pulls, answers, bytes}, ...], total {pulls, answers, bytes}
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any, Final

from proxy.clock import Clock
from proxy.metrics import QuotaSample
from proxy.policy.quota import Gate
from proxy.policy.quota.account import Account
from proxy.policy.quota.forecast import Forecast
from proxy.policy.quota.ledger import KEPT_SECONDS
from proxy.policy.quota.words import forecast_text
from proxy.quota.books import Books
from proxy.quota.events import Events
from proxy.quota.governor import Governor
from proxy.quota.rows import Moments
from proxy.quota.savings import Savings
from proxy.store.index.ledger import Dimension, LedgerFile, Order, TopRow

HISTORY_POINTS: Final = 500
SPENDERS: Final = 10
_HOUR: Final = 3600.0

Document = dict[str, Any]


class Report:
    """Tells what is known. `accounts` are those of the upstreams in use, in the order of the configuration."""

    def __init__(
        self,
        accounts: Callable[[], Iterable[Account]],
        governor: Governor,
        savings: Savings,
        events: Events,
        books: Books,
        file: LedgerFile,
        clock: Clock,
    ) -> None:
        self._accounts = accounts
        self._governor = governor
        self._savings = savings
        self._events = events
        self._books = books
        self._file = file
        self._clock = clock
        self._started_at = clock.time()

    def quota(self) -> Document:
        """The document of /api/quota."""
        return {
            "now": self._clock.time(),
            "started_at": self._started_at,
            "accounted_since": self._savings.since,
            "governor": self._rules(),
            "upstreams": [self._upstream(account) for account in self._accounts()],
            "events": [event._asdict() for event in self._events.recent()],
        }

    async def top(self, by: Dimension, order: Order, period: float, count: int) -> Document:
        """The document of /api/top, up to this moment. Raises sqlite3.Error."""
        await self._books.flush(everything=True)
        now = self._clock.time()
        rows, total = await self._file.top(by, now - period, order, count)
        return {
            "now": now,
            "by": by,
            "order": order,
            "period_seconds": period,
            "rows": [row._asdict() for row in rows],
            "total": _sums(total),
        }

    def samples(self) -> Iterable[QuotaSample]:
        """For a scrape."""
        now = self._clock.monotonic()
        for account in self._accounts():
            expected, last, limits = account.forecast(now), account.ledger.last, account.limits
            saved = self._savings.since_start(account.upstream)
            yield QuotaSample(
                account.upstream,
                int(self._governor.level(account)),
                self._governor.waiting(account),
                account.leak.unexplained(now),
                account.leak.is_suspected(now),
                None if last is None else now - last.at,
                None if expected.exhausted_at is None else max(0.0, expected.exhausted_at - now),
                saved.pulls,
                saved.bytes,
                saved.outages,
                {gate.value: count for gate, count in limits.refusals.items()},
                {gate.value: limits.closed_for(gate, now) or 0.0 for gate in Gate},
            )

    def brief(self, account: Account) -> Document:
        """What /api/status says of an account."""
        now = Moments.of(self._clock)
        return {
            "kind": account.kind(now.monotonic),
            "level": self._governor.level(account).word,
            "forecast": forecast_text(account.forecast(now.monotonic), lambda at: _time_of_day(now.to_epoch(at))),
            "unexplained_pulls": account.leak.unexplained(now.monotonic),
            "bypass_suspected": account.leak.is_suspected(now.monotonic),
            "waiting": self._governor.waiting(account),
            "saved": self._saved(account.upstream),
        }

    def _upstream(self, account: Account) -> Document:
        now, ledger = Moments.of(self._clock), account.ledger
        known = account.kind(now.monotonic) != "unknown"
        last = ledger.last if known else None
        spends = ledger.spends(now.monotonic - KEPT_SECONDS)
        return {
            "upstream": account.upstream,
            "account": account.user,
            "limit": last and last.limit,
            "remaining": last and last.remaining,
            "window_seconds": last and last.window,
            "source": last and last.source,
            "observed_at": None if ledger.last is None else now.to_epoch(ledger.last.at),
            "observed_by": ledger.last and ledger.last.by,
            "kind": account.kind(now.monotonic),
            "level": self._governor.level(account).word,
            "forecast": _forecast(account.forecast(now.monotonic), now),
            "history": [[now.to_epoch(at), left] for at, left in ledger.history(now.monotonic, HISTORY_POINTS)],
            "pulls_last_hour": sum(spend.at >= now.monotonic - _HOUR for spend in spends),
            "pulls_last_day": len(spends),
            "unexplained": account.leak.unexplained(now.monotonic),
            "bypass_suspected": account.leak.is_suspected(now.monotonic),
            "gates": {f"{gate.value}_closed_seconds": account.limits.closed_for(gate, now.monotonic) for gate in Gate},
            "waiting": self._governor.waiting(account),
            "saved": self._saved(account.upstream),
            "decisions": self._governor.decisions(account.upstream),
            "spenders": {
                "images": _most(spend.repository for spend in spends),
                "clients": _most(spend.purpose.asker.address for spend in spends),
            },
        }

    def _saved(self, upstream: str) -> Document:
        return {
            "since_start": asdict(self._savings.since_start(upstream)),
            "ever": asdict(self._savings.ever(upstream)),
        }

    def _rules(self) -> Document:
        rules = self._governor.rules
        return {
            "enabled": rules.enabled,
            "careful": rules.careful,
            "tight": rules.tight,
            "reserve": rules.reserve,
            "important": list(rules.important),
            "unimportant": list(rules.unimportant),
            "wait_seconds": rules.wait,
        }


def _forecast(expected: Forecast, now: Moments) -> Document:
    def epoch(moment: float | None) -> float | None:
        return None if moment is None else now.to_epoch(moment)

    return {
        "state": expected.state,
        "text": forecast_text(expected, lambda at: _time_of_day(now.to_epoch(at))),
        "rate_per_hour": None if expected.per_second is None else expected.per_second * _HOUR,
        "measured_over_seconds": expected.over_seconds,
        "exhausted_at": epoch(expected.exhausted_at),
        "low": epoch(expected.earliest),
        "high": epoch(expected.latest),
        "returns_at": epoch(expected.returns_at),
        "returns_latest": epoch(expected.returns_latest),
    }


def _most(names: Iterable[str]) -> list[Document]:
    return [{"name": name, "pulls": pulls} for name, pulls in Counter(names).most_common(SPENDERS)]


def _sums(total: TopRow) -> Document:
    return {"pulls": total.pulls, "answers": total.answers, "bytes": total.bytes}


def _time_of_day(epoch: float) -> str:
    """As people where this runs write it."""
    return time.strftime("%H:%M", time.localtime(epoch))
