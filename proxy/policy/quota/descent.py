"""How far a counter has fallen that moves in steps, lags, and is told by several servers that disagree a little.

Docker Hub was seen to count by steps (PROTOCOL 1.2), and a window that rolls gives back what was used hours ago at any
moment. So only a new low is a fall: what goes 95, 93, 95, 93 has fallen by two, once. A rise is believed after it has
lasted for SETTLED_SECONDS.
"""

from __future__ import annotations

from collections import deque
from typing import Final

SETTLED_SECONDS: Final = 300.0


class Descent:
    """Follows one counter. Times are on the monotonic clock, in order."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, int]] = deque()
        """What was heard in the last SETTLED_SECONDS and is a low, or will be one: times and counts both rise."""

    def fall(self, now: float, remaining: int) -> int:
        """By how much the counter is below what it was lately; 0 for the first time, and for a rise."""
        low = self._settle(now)
        while self._recent and self._recent[-1][1] >= remaining:
            self._recent.pop()
        self._recent.append((now, remaining))
        return 0 if low is None else max(0, low - remaining)

    def reset(self) -> None:
        """The next count is of something else."""
        self._recent.clear()

    def _settle(self, now: float) -> int | None:
        """The lowest of what was heard lately; of one who hears seldom, the last."""
        while len(self._recent) > 1 and self._recent[0][0] <= now - SETTLED_SECONDS:
            self._recent.popleft()
        return self._recent[0][1] if self._recent else None
