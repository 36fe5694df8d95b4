"""What upstreams were spared: since the start, and since ever."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from proxy.clock import Clock
from proxy.quota.traffic import Tally, Traffic
from proxy.store.index import Index

_SINCE: Final = "accounted_since"


@dataclass(frozen=True, slots=True)
class Saved:
    """Counted pulls and body bytes that clients got and upstream was not asked for; outages, and answers in them."""

    pulls: int = 0
    bytes: int = 0
    stale_answers: int = 0
    outages: int = 0

    def __add__(self, other: Saved) -> Saved:
        return Saved(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Saved)))


class Savings:
    """Of all upstreams. `pulls` and `fetched` are what each upstream was asked for since the start."""

    def __init__(
        self,
        index: Index,
        traffic: Traffic,
        pulls: Callable[[str], int],
        fetched: Callable[[], Mapping[str, int]],
        clock: Clock,
    ) -> None:
        self._index = index
        self._traffic = traffic
        self._pulls = pulls
        self._fetched = fetched
        self._clock = clock
        self._before: dict[str, Saved] = {}
        self._kept: dict[str, Saved] = {}

    @property
    def since(self) -> float | None:
        """Since when (epoch) it is added up."""
        text = self._index.state(_SINCE)
        return float(text) if text else None

    def since_start(self, upstream: str) -> Saved:
        """What was saved by this process."""
        tally = self._traffic.tallies().get(upstream) or Tally()
        pulls = max(0, tally.answers - self._pulls(upstream))
        return Saved(pulls, max(0, tally.bytes - self._fetched().get(upstream, 0)), tally.stale, tally.outages)

    def ever(self, upstream: str) -> Saved:
        """What was saved as long as these books are kept."""
        return self._earlier(upstream) + self.since_start(upstream)

    def keep(self) -> None:
        """Bring it to the index."""
        for upstream in self._traffic.tallies():
            total = self.ever(upstream)
            if total != self._kept.get(upstream):
                self._kept[upstream] = total
                self._index.put_state(_name(upstream), json.dumps(asdict(total)))
                if self.since is None:
                    self._index.put_state(_SINCE, str(self._clock.time()))

    def _earlier(self, upstream: str) -> Saved:
        if upstream not in self._before:
            self._before[upstream] = _parse(self._index.state(_name(upstream)))
        return self._before[upstream]


def _parse(text: str | None) -> Saved:
    try:
        document: Any = json.loads(text or "{}")
        return Saved(**{each.name: int(document.get(each.name, 0)) for each in fields(Saved)})
    except (ValueError, TypeError, AttributeError):
        return Saved()


def _name(upstream: str) -> str:
    return f"saved {upstream}"
