"""What counters did lately: as Prometheus' increase() and rate() say it, from looks every few seconds.

They begin at 0 with the process, so what happened before the first look counts; `take_for_granted` makes what was
counted so far old.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from proxy.policy.alerts.facts import Facts

HOUR: Final = 3600.0
DAY: Final = 86400.0
SAMPLE_SECONDS: Final = 60.0
FELL_TO: Final = 0.5
"""Of the hit ratio of the day before."""
LEAST_REQUESTS_PER_SECOND: Final = 0.01

Counter = tuple[str, str]
"""What is counted, and of what: `("vanished", "docker.io")`."""


@dataclass(slots=True)
class _Hits:
    """The hit ratio of one kind of requests: of the last hour, and of the day that ended an hour ago."""

    samples: deque[tuple[float, int, int, int]] = field(default_factory=deque)
    """When, and the requests, hits and misses until then; of the last hour."""
    ratios: deque[tuple[float, float]] = field(default_factory=deque)
    fallen_to: float | None = None

    def add(self, requests: int, hits: int, misses: int, now: float) -> None:
        while self.samples and self.samples[0][0] < now - HOUR:
            self.samples.popleft()
        while self.ratios and self.ratios[0][0] < now - HOUR - DAY:
            self.ratios.popleft()
        self.samples.append((now, requests, hits, misses))
        since, requests_then, hits_then, misses_then = self.samples[0]
        answered = hits - hits_then + misses - misses_then
        self.fallen_to = None
        if answered <= 0:
            return
        ratio = (hits - hits_then) / answered
        self.ratios.append((now, ratio))
        earlier = [each for at, each in self.ratios if at <= now - HOUR]
        busy = (requests - requests_then) / (now - since) > LEAST_REQUESTS_PER_SECOND
        if earlier and busy and ratio < FELL_TO * sum(earlier) / len(earlier):
            self.fallen_to = ratio


class Trends:
    """Times are on the monotonic clock, in order."""

    def __init__(self) -> None:
        self._counts: dict[Counter, int] = {}
        self._grown_at: dict[Counter, float] = {}
        self._hits: dict[str, _Hits] = {}
        self._sampled_at = float("-inf")

    def look(self, facts: Facts, now: float) -> None:
        """Take note of what is counted now."""
        for counter, count in _counters(facts):
            if count > self._counts.get(counter, 0):
                self._grown_at[counter] = now
            self._counts[counter] = count
        if now - self._sampled_at >= SAMPLE_SECONDS:
            self._sampled_at = now
            for kind in facts.hits:
                sums = facts.requests.get(kind, 0), facts.hits[kind], facts.misses.get(kind, 0)
                self._hits.setdefault(kind, _Hits()).add(*sums, now)

    def take_for_granted(self, facts: Facts) -> None:
        """What is counted now is no news."""
        self._counts.update(_counters(facts))
        self._hits.clear()

    def has_grown(self, what: str, of: str, window: float, now: float) -> bool:
        """Whether this was counted less than `window` seconds ago."""
        return now - self._grown_at.get((what, of), float("-inf")) < window

    def fallen_hit_ratios(self) -> Iterator[tuple[str, float]]:
        """The kinds of requests of which far fewer are hits than a day ago, and the share that is one now."""
        for kind, hits in self._hits.items():
            if hits.fallen_to is not None:
                yield kind, hits.fallen_to


def _counters(facts: Facts) -> Iterator[tuple[Counter, int]]:
    yield ("not_stored", ""), facts.not_stored
    for found, count in facts.integrity_failures.items():
        yield ("integrity", found), count
    for upstream in facts.upstreams:
        yield ("limited", upstream.name), upstream.limited
        yield ("vanished", upstream.name), upstream.vanished
