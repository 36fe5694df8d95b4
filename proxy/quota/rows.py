"""The books as they stand on disk: other times, and plain values that may be anything after all these years."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, get_args

from proxy.clock import Clock
from proxy.policy.quota import Gate
from proxy.policy.quota.account import Account
from proxy.policy.quota.ledger import By, Observation, Spend
from proxy.policy.quota.purpose import Asker, Purpose, Why
from proxy.store.index.ledger import ObservationRow, PullRow


@dataclass(frozen=True, slots=True)
class Moments:
    """Both clocks at one moment, to turn the times of one into those of the other."""

    epoch: float
    monotonic: float

    @classmethod
    def of(cls, clock: Clock) -> Moments:
        """Now."""
        return cls(clock.time(), clock.monotonic())

    def to_epoch(self, monotonic: float) -> float:
        """When that was, as the clock on the wall has it now."""
        return self.epoch - (self.monotonic - monotonic)

    def to_monotonic(self, epoch: float) -> float:
        """Likewise, back."""
        return self.monotonic - (self.epoch - epoch)


NO_STATE: Final = '{"closed": {}, "unexplained": []}'
"""What `state_text` says of an account that is well."""


def observation_row(account: Account, seen: Observation, now: Moments) -> ObservationRow:
    """As it is written."""
    values = (seen.limit, seen.remaining, seen.window, seen.source, seen.by)
    return ObservationRow(now.to_epoch(seen.at), account.upstream, account.name, *values)


def pull_row(account: Account, spend: Spend, now: Moments) -> PullRow:
    """As it is written. Who the user is, an open listener does not know."""
    purpose, asker = spend.purpose, spend.purpose.asker
    return PullRow(
        now.to_epoch(spend.at),
        account.upstream,
        account.name,
        spend.repository,
        spend.reference,
        asker.address,
        None,
        asker.agent,
        purpose.why,
    )


def observation(row: ObservationRow, now: Moments) -> Observation:
    """As it was heard."""
    by = cast(By, row.by if row.by in get_args(By) else "head")
    return Observation(now.to_monotonic(row.at), row.limit, row.remaining, row.window, row.source, by)


def spend(row: PullRow, now: Moments) -> Spend:
    """As it was made."""
    why = cast(Why, row.why if row.why in get_args(Why) else "digest")
    return Spend(now.to_monotonic(row.at), row.repository, row.reference, Purpose(Asker(row.client, row.agent), why))


def state_text(account: Account, now: Moments) -> str:
    """The gates of an account that are closed, and what it cannot explain."""
    closed = {gate.value: round(now.epoch + left) for gate, left in account.limits.closed(now.monotonic).items()}
    unexplained = [(round(now.to_epoch(at)), count) for at, count in account.leak.falls(float("-inf"))]
    return json.dumps({"closed": closed, "unexplained": unexplained})


def restore_state(account: Account, text: str | None, now: Moments) -> None:
    """Likewise, back; what makes no sense is left out."""
    document = _document(text)
    closed: Any = document.get("closed")
    if isinstance(closed, Mapping):
        gates = {gate: closed[gate.value] for gate in Gate if isinstance(closed.get(gate.value), int | float)}
        account.limits.restore({gate: until - now.epoch for gate, until in gates.items()}, now.monotonic)
    unexplained: Any = document.get("unexplained")
    if isinstance(unexplained, Sequence):
        falls = [pair for pair in unexplained if isinstance(pair, list) and len(pair) == 2]
        known = [(at, count) for at, count in falls if isinstance(at, int) and isinstance(count, int)]
        past = [(now.to_monotonic(at), count) for at, count in sorted(known) if at <= now.epoch and count > 0]
        account.leak.restore(past)


def _document(text: str | None) -> dict[str, Any]:
    try:
        document = json.loads(text or "{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
