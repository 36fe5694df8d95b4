"""When a quota will be used up at the present rate, when some of it comes back, and how sure that is.

The rate is that of the last half hour or, if little happened in it, of a longer time. It is taken from our own counted
pulls and from what others were noticed to pull, not from single falls of the counter, which moves in steps; where the
counter was seen to fall by less than one for each pull (PROTOCOL 1.2) that is reckoned with.

Nobody documents how the window works. So the best guess has each pull come back a window after it was made, the
earliest time has nothing come back at all and the highest rate that chance allows, the latest has the lowest rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Final, Literal

from proxy.policy.quota.leak import DEFAULT_WINDOW_SECONDS, Leak
from proxy.policy.quota.ledger import KEPT_SECONDS, Ledger, Observation

State = Literal["unknown", "unlimited", "too-little", "steady", "falling", "exhausted"]

HORIZONS_SECONDS: Final = (1800.0, 2 * 3600.0, 6 * 3600.0)
"""Over what time a rate is taken: the shortest in which enough was used."""
ENOUGH: Final = 4
"""So many pulls make a rate."""
LEARNT_SECONDS: Final = 300.0
"""For so long a quota must have been watched before that nothing was used says anything."""
CONFIDENCE: Final = 1.645
"""Standard deviations on either side: nine times in ten the truth is between."""
WEIGHED_PULLS: Final = 20
"""From so many pulls on, what one of them takes off the counter is known."""
LEAST_WEIGHT: Final = 0.25


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is to be expected. Times are on the monotonic clock; None is "not known", of `latest` "perhaps never"."""

    state: State
    per_second: float | None = None
    over_seconds: float | None = None
    exhausted_at: float | None = None
    earliest: float | None = None
    latest: float | None = None
    returns_at: float | None = None
    """When the first of what was used should come back, if it is known when that was."""
    returns_latest: float | None = None
    """By then some of it has to, if the window is a rolling one."""


@dataclass(frozen=True, slots=True)
class _Use:
    """What took something off the counter: our pulls and others', and how much each took, oldest first."""

    events: Sequence[tuple[float, float]]
    pending: float
    """How far the counter may lag behind our own pulls."""

    def since(self, moment: float) -> tuple[float, float]:
        """How much was used from then on, and what chance may have added to it, or left out.

        What others used comes in lumps, of which nobody knows when the next one does: so many at once tell less of a
        rate than as many one by one.
        """
        amounts = [amount for at, amount in self.events if at >= moment]
        return sum(amounts), CONFIDENCE * math.sqrt(sum(amount * amount for amount in amounts))


def forecast(ledger: Ledger, leak: Leak, now: float, *, unlimited: bool = False, closed: bool = False) -> Forecast:
    """What is to be expected of this quota. `closed`: upstream answered 429, whatever its headers say."""
    last = ledger.last
    if unlimited:
        return Forecast("unlimited")
    if last is None or last.limit is None or last.remaining is None or ledger.since is None:
        return Forecast("exhausted" if closed else "unknown")
    window = float(last.window or DEFAULT_WINDOW_SECONDS)
    if now - last.at > window:  # All that was heard of is over by now.
        return Forecast("exhausted" if closed else "unknown")
    use = _use(ledger, leak, now, window, last)
    returns_at, returns_latest = _returns(ledger, use, last, now, window)
    if closed or last.remaining == 0:
        return Forecast(
            "exhausted", exhausted_at=_ended(ledger, last), returns_at=returns_at, returns_latest=returns_latest
        )
    watched = now - max(ledger.since, now - HORIZONS_SECONDS[-1])
    over, used, spread = _rate(use, now, watched)
    if used == 0 and watched >= LEARNT_SECONDS:
        return Forecast("steady", 0.0, over, returns_at=returns_at, returns_latest=returns_latest)
    if (used < ENOUGH and watched < HORIZONS_SECONDS[0]) or not over:
        return Forecast("too-little", returns_at=returns_at, returns_latest=returns_latest)
    returns = [(at + window - now, amount) for at, amount in use.events if at + window > now]
    rate, most, least = used / over, (used + spread) / over, max(0.0, used - spread) / over
    best = _used_up(last.remaining, rate, returns, window)
    earliest = _used_up(max(0.0, last.remaining - use.pending), most, [], window)
    latest = _used_up(last.remaining, least, returns, window)
    return Forecast(
        "steady" if best is None else "falling",
        rate,
        over,
        None if best is None else now + best,
        None if earliest is None else now + earliest,
        None if latest is None or best is None else now + latest,
        returns_at,
        returns_latest,
    )


def _use(ledger: Ledger, leak: Leak, now: float, window: float, last: Observation) -> _Use:
    """What was used in this window, and before it as far as rates go back."""
    assert ledger.since is not None
    begin = max(ledger.since, now - max(window, HORIZONS_SECONDS[-1]))
    spends = [each.at for each in ledger.spends(begin)]
    falls = _falls(ledger.observations(begin))
    others = [(at, float(count)) for at, count in leak.falls(begin)]
    told_until = falls[-1][0] if falls else begin
    lagging = sum(at > told_until for at in spends)
    weight, told = 1.0, len(spends) - lagging
    if told >= WEIGHED_PULLS:
        fallen = sum(amount for _, amount in falls) - sum(amount for _, amount in others)
        weight = min(1.0, max(LEAST_WEIGHT, fallen / told))
    pending = min(float(lagging), (last.limit or 0) / 10)
    return _Use(sorted([(at, weight) for at in spends] + others), pending)


def _ended(ledger: Ledger, last: Observation) -> float:
    """Since when nothing is left."""
    empty = takewhile(lambda each: each.remaining == 0, reversed(ledger.observations(last.at - KEPT_SECONDS)))
    return min((each.at for each in empty), default=last.at)


def _falls(observations: Sequence[Observation]) -> list[tuple[float, int]]:
    """The falls of the counter, as far as it was written down."""
    found = []
    for before, after in pairwise(observations):
        if before.remaining is not None and after.remaining is not None and after.remaining < before.remaining:
            found.append((after.at, before.remaining - after.remaining))
    return found


def _rate(use: _Use, now: float, watched: float) -> tuple[float, float, float]:
    """Over how many seconds, what was used in them, and by how much that may be chance."""
    for horizon in HORIZONS_SECONDS:
        over = min(horizon, watched)
        used, spread = use.since(now - over)
        if used >= ENOUGH or over == watched:
            break
    return over, used, spread


def _used_up(remaining: float, rate: float, returns: Sequence[tuple[float, float]], window: float) -> float | None:
    """In how many seconds nothing is left; None if that is not before what is used now comes back itself."""
    if rate <= 0:
        return None
    left, then = remaining, 0.0
    for moment, amount in returns:
        if then + left / rate <= moment:
            break
        left += amount - rate * (moment - then)
        then = moment
    end = then + left / rate
    return end if end <= window else None


def _returns(
    ledger: Ledger, use: _Use, last: Observation, now: float, window: float
) -> tuple[float | None, float | None]:
    """When the first of what was used is expected back, and by when it has to be."""
    if last.limit is None or last.remaining is None or last.remaining >= last.limit:
        return None, None
    known = [(at + window, amount) for at, amount in use.events if at + window > now]
    used = last.limit - last.remaining
    # Of what we know nothing of, some may come back at any moment before.
    first = known[0][0] if 2 * sum(amount for _, amount in known) >= used else None
    told = [each.at for each in ledger.observations(now - window) if (each.remaining or 0) < (each.limit or 0)]
    latest = (told[0] if told and ledger.since is not None and told[0] >= ledger.since else last.at) + window
    return (min(first, latest) if first is not None else None), latest
