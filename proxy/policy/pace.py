"""How fast background work may go."""

from __future__ import annotations

from typing import Final

_BURST_SECONDS: Final = 0.25
"""Work that was waited for in vain may be made up for, but no more than this much of it."""


class Pace:
    """Holds work to `rate` units a second on the average; None is no limit."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._ready_at = float("-inf")

    def spend(self, amount: float, now: float) -> float:
        """Seconds to wait, now that so many units were done; `now` is of a clock that is never set back."""
        if self._rate is None:
            return 0.0
        self._ready_at = max(self._ready_at, now - _BURST_SECONDS) + amount / self._rate
        return max(0.0, self._ready_at - now)
