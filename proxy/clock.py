"""The two clocks, as one argument, so that decisions can be tested at any time of day."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def time(self) -> float:
        """Seconds since the epoch. Can be stepped; only for what must outlive the process."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary point, never set back. For ages and deadlines within the process."""


class SystemClock:
    """The machine's clocks."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
