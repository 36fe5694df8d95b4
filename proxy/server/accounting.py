"""What is counted, logged and written into the books once a request is answered."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from proxy.metrics import Metrics
from proxy.pull import Outcome
from proxy.quota.traffic import Traffic
from proxy.server.access_log import AccessLog, Exchange
from proxy.server.repeats import Answers
from proxy.store.room.usage import Usage

CLIENT_LEFT: Final = 499
"""What is counted as status for a client that left before it was answered."""

_ANSWERED: Final = frozenset({200, 304})


class Accounting:
    """Takes note of exchanges that have ended: it adds, and leaves the rest for later."""

    def __init__(self, metrics: Metrics, traffic: Traffic, access_log: AccessLog | None) -> None:
        self._metrics = metrics
        self._traffic = traffic
        self._access_log = access_log

    def ended(self, exchange: Exchange) -> None:
        """This one has."""
        metrics, kind, outcome = self._metrics, exchange.kind, exchange.outcome
        metrics.request(kind, exchange.method, exchange.status or CLIENT_LEFT)
        metrics.served(kind, exchange.sent)
        if exchange.aborted:
            metrics.aborted(kind)
        if exchange.first_byte_seconds is not None and (outcome or exchange.error):
            metrics.first_byte(kind, outcome.label if outcome else "error", exchange.first_byte_seconds)
        if outcome is not None:
            self._outcome(exchange, outcome)
        if self._access_log is not None:
            self._access_log.write(exchange, time.perf_counter() - exchange.started)

    def _outcome(self, exchange: Exchange, outcome: Outcome) -> None:
        kind, metrics = exchange.kind, self._metrics
        if outcome.stale_because:
            metrics.stale(kind, outcome.stale_because)
        elif outcome.kind == "hit":
            metrics.hit(kind)
        else:
            metrics.miss(kind)
        if outcome.collapsed:
            metrics.collapsed(kind)
        if exchange.repository is not None:
            self._books(exchange, outcome)

    def _books(self, exchange: Exchange, outcome: Outcome) -> None:
        assert exchange.repository is not None
        got = _is_pull(exchange.kind, exchange.method, exchange.status)
        if got or exchange.sent:
            self._traffic.served(exchange.repository, exchange.asker, answered=got, sent=exchange.sent)
        if outcome.stale_because:
            self._traffic.stale(exchange.repository.registry, outcome.stale_because)


def add(batch: Iterable[Answers], metrics: Metrics, traffic: Traffic, usage: Usage) -> None:
    """Take note of answers that were given again, as of exchanges that have ended; what they gave is used now."""
    for each in batch:
        metrics.request(each.kind, each.method, each.status, each.times)
        metrics.served(each.kind, each.sent)
        metrics.first_byte(each.kind, "hit", 0.0, each.times)
        metrics.hit(each.kind, each.times)
        got = _is_pull(each.kind, each.method, each.status)
        if got or each.sent:
            traffic.served(each.repository, each.asker, answered=each.times if got else 0, sent=each.sent)
        usage.touch(each.digest)


def _is_pull(kind: str, method: str, status: int) -> bool:
    """Whether the client would have spent a pull at the upstream."""
    return kind == "manifest" and method == "GET" and status in _ANSWERED
