"""When one connection is slow for a blob, and how long a segment over one of several may take.

Slow is what brings less than SLOW_BYTES_PER_SECOND, twice in a row, over WINDOW_SECONDS of waiting, and is not getting
faster: a connection begins slowly anyway (RFC 5681, slow start). After PATIENCE_SECONDS it is slow even so. Only time
in which upstream was waited for counts, so that a slow disk or a busy machine is not taken for a slow upstream.
"""

from __future__ import annotations

from typing import Final

SLOW_BYTES_PER_SECOND: Final = 80_000_000
WINDOW_SECONDS: Final = 0.1
PATIENCE_SECONDS: Final = 1.0
GROWTH: Final = 1.25
"""By this factor from window to window, and it is getting faster."""

STUCK_SECONDS: Final = 5.0
STUCK_FACTOR: Final = 16.0
"""A segment may take so many times as long as it would have by the first connection: several may share one line."""
_MAX_SEGMENT_SECONDS: Final = 3600.0


class Speed:
    """What one connection brings."""

    def __init__(self) -> None:
        self.is_slow = False
        self.rate = float("inf")
        """Bytes a second in the last whole window."""
        self._waited = 0.0
        self._waited_slowly = 0.0
        self._received = 0

    def note(self, seconds: float, received: int, *, full: bool) -> None:
        """So many bytes came after so long a wait; `full`: as many as were asked for, so that they were waiting."""
        self._received += received
        if not full:
            self._waited += seconds
        if self._waited < WINDOW_SECONDS:
            return
        before, self.rate = self.rate, self._received / self._waited
        if self.rate >= SLOW_BYTES_PER_SECOND:
            self._waited_slowly = 0.0
        else:
            self._waited_slowly += self._waited
            steady = before < SLOW_BYTES_PER_SECOND and self.rate < before * GROWTH
            self.is_slow = steady or self._waited_slowly >= PATIENCE_SECONDS
        self._waited, self._received = 0.0, 0


def patience(length: int, rate: float) -> float:
    """Seconds after which a segment of this length is stuck; the first connection brought `rate` bytes a second."""
    expected = length / rate if rate > 0 else _MAX_SEGMENT_SECONDS
    return min(_MAX_SEGMENT_SECONDS, max(STUCK_SECONDS, STUCK_FACTOR * expected))
