"""What went to whom, and what of it upstream was spared.

A request adds to one entry of a dict; a keeper brings the sums to disk now and then, by image, by client and by kind of
client. A GET of a manifest that was answered would have been a counted pull without us, and its bytes would have come
from upstream: what was not pulled and not fetched is saved. Outages are counted when the first stale answer is given
because of one; it lasts until none was given for OUTAGE_SECONDS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from proxy.clock import Clock
from proxy.oci.names import Repository
from proxy.policy.quota.purpose import Asker
from proxy.quota.events import Events
from proxy.store.index.ledger import ServedRow

OUTAGE_SECONDS: Final = 300.0
MAX_ENTRIES: Final = 10_000
"""Of different images and clients between two visits of the keeper; more are summed up as `(others)`."""
_OTHERS: Final = "(others)"
_OUTAGES: Final = {
    "slow": "it is slow to answer",
    "limited": "its limit is reached",
    "denied": "it refuses access",
    "unavailable": "it cannot be reached",
}


class _Key(NamedTuple):
    repository: Repository
    asker: Asker


@dataclass(slots=True)
class Tally:
    """What went to clients of one upstream registry since the start. `bytes` are of bodies."""

    answers: int = 0
    bytes: int = 0
    stale: int = 0
    outages: int = 0


class Traffic:
    """Adds up. Used on the event loop."""

    def __init__(self, events: Events, clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._pending: dict[_Key, list[int]] = {}
        self._tallies: dict[str, Tally] = {}
        self._stale_at: dict[str, float] = {}
        self._settle: Callable[[], None] = lambda: None

    def settle_first(self, settle: Callable[[], None]) -> None:
        """Before these sums are read, `settle` brings what was counted elsewhere."""
        self._settle = settle

    def served(self, repository: Repository, asker: Asker, *, answered: int, sent: int) -> None:
        """A client was sent so many bytes, `answered` times as the answer to a GET of a manifest."""
        key = _Key(repository, asker)
        sums = self._pending.get(key)
        if sums is None:
            if len(self._pending) >= MAX_ENTRIES:
                key = _Key(Repository(repository.registry, _OTHERS), Asker(_OTHERS))
            sums = self._pending.setdefault(key, [0, 0])
        sums[0] += answered
        sums[1] += sent

    def stale(self, registry: str, reason: str) -> None:
        """A client was given something stale; reasons that are no outage are not counted."""
        if reason not in _OUTAGES:
            return
        now, tally = self._clock.monotonic(), self._tally(registry)
        tally.stale += 1
        if now - self._stale_at.get(registry, float("-inf")) > OUTAGE_SECONDS:
            tally.outages += 1
            self._events.note(registry, "stale", f"what we hold of {registry} is served stale: {_OUTAGES[reason]}")
        self._stale_at[registry] = now

    def tallies(self) -> Mapping[str, Tally]:
        """What went to clients since the start, by upstream registry."""
        self._settle()
        current = {
            name: Tally(each.answers, each.bytes, each.stale, each.outages) for name, each in self._tallies.items()
        }
        for key, (answers, sent) in self._pending.items():
            tally = current.setdefault(key.repository.registry, Tally())
            tally.answers += answers
            tally.bytes += sent
        return current

    def take(self) -> list[ServedRow]:
        """What was added up since the last time, for whoever writes it to disk."""
        self._settle()
        now = self._clock.time()
        pending, self._pending = self._pending, {}
        sums: dict[tuple[str, str], list[int]] = {}
        for (repository, asker), (answers, sent) in pending.items():
            tally = self._tally(repository.registry)
            tally.answers += answers
            tally.bytes += sent
            for key in (("image", str(repository)), ("client", asker.address), ("agent", asker.agent)):
                row = sums.setdefault(key, [0, 0])
                row[0] += answers
                row[1] += sent
        return [ServedRow(now, dimension, name, *row) for (dimension, name), row in sums.items()]  # type: ignore[arg-type]

    def _tally(self, registry: str) -> Tally:
        tally = self._tallies.get(registry)
        if tally is None:
            tally = self._tallies[registry] = Tally()
        return tally
