"""Whether somebody else uses this account or address: `remaining` falls faster than our own counted pulls explain.

Each fall of the counter is paid with pulls of ours that no fall has explained yet; what cannot be paid was pulled by
somebody else. The counter may lag behind and move in steps, so pulls are kept to pay with for a whole window - but no
more than CREDIT of the limit, or an upstream that counts only every second pull would hide a leak for ever. A pull
whose answer comes after the fall that it caused pays late.

What cannot be told apart from ours is not an alarm: when the account, the address, the limit or a clock changes, the
next word of upstream is a new beginning; what was unexplained stays so until its window is over.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from proxy.policy.quota.descent import Descent

CREDIT: Final = 0.1
"""The share of the limit that our own pulls may be ahead of the counter."""
SUSPICIOUS: Final = 0.05
"""The share of the limit that must be unexplained in one window before anybody is suspected."""
SUSPICIOUS_PULLS: Final = 3
"""And at least so many pulls."""
LATE_SECONDS: Final = 60.0
"""How long after a fall the answer to the pull that caused it may come."""
DEFAULT_WINDOW_SECONDS: Final = 6 * 3600.0


class Leak:
    """Watches one account at one upstream. Times are on the monotonic clock, in order."""

    def __init__(self) -> None:
        self._descent = Descent()
        self._unpaid: deque[tuple[float, int]] = deque()
        """When pulls were noticed that were none of ours, and how many."""
        self._credit: deque[float] = deque()
        """Pulls of ours that no fall has explained yet."""
        self._limit: int | None = None
        self._window = DEFAULT_WINDOW_SECONDS
        self._suspected = False

    def spent(self, now: float) -> None:
        """One counted pull of ours was answered."""
        if self._unpaid and self._unpaid[-1][0] >= now - LATE_SECONDS:
            at, count = self._unpaid.pop()
            if count > 1:
                self._unpaid.append((at, count - 1))
        else:
            self._credit.append(now)
        self._tidy(now)

    def observed(self, remaining: int, limit: int, window: float | None, now: float) -> None:
        """Upstream said what is left. Say `reset` before what it says of another account, address or limit."""
        self._limit, self._window = limit, window or DEFAULT_WINDOW_SECONDS
        self._tidy(now)
        fall = self._descent.fall(now, remaining)
        while fall and self._credit:
            self._credit.popleft()
            fall -= 1
        if fall:
            self._unpaid.append((now, fall))

    def reset(self) -> None:
        """What comes next cannot be compared with what was."""
        self._descent.reset()
        self._credit.clear()

    def unexplained(self, now: float) -> int:
        """The pulls of this window that were none of ours."""
        self._tidy(now)
        return sum(count for _, count in self._unpaid)

    def falls(self, since: float) -> list[tuple[float, int]]:
        """When others were noticed to have pulled, and how many, oldest first."""
        return [(at, count) for at, count in self._unpaid if at >= since]

    def is_suspected(self, now: float) -> bool:
        """Whether somebody else pulls. An episode ends when less than half of what began it is unexplained."""
        threshold = max(SUSPICIOUS_PULLS, SUSPICIOUS * (self._limit or 0))
        unexplained = self.unexplained(now)
        self._suspected = unexplained > (threshold / 2 if self._suspected else threshold)
        return self._suspected

    def restore(self, falls: list[tuple[float, int]]) -> None:
        """What an earlier process noticed, oldest first."""
        self._unpaid.extendleft(reversed(falls))

    def _tidy(self, now: float) -> None:
        old = now - self._window
        while self._unpaid and self._unpaid[0][0] <= old:
            self._unpaid.popleft()
        most = max(SUSPICIOUS_PULLS, CREDIT * (self._limit or 0))
        while self._credit and (self._credit[0] <= old or len(self._credit) > most):
            self._credit.popleft()
