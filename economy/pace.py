"""The time of the day that is replayed: it passes faster than on the wall."""

from __future__ import annotations

import asyncio
import time
from typing import Final

MINUTE: Final = 60.0
HOUR: Final = 3600.0
EPOCH: Final = 1_800_000_000.0


class Pace:
    """A clock that runs `factor` times as fast as it should. Of the shape of `proxy.clock.Clock`.

    It starts when it is made, since programs have to start by it; the day begins with `midnight`.
    """

    def __init__(self, factor: float, began: float | None = None) -> None:
        """`began` is on the machine's monotonic clock, so that processes agree; by default now."""
        self.factor = factor
        self.began = time.monotonic() if began is None else began
        self._midnight = self.time()

    def time(self) -> float:
        return EPOCH + (time.monotonic() - self.began) * self.factor

    def monotonic(self) -> float:
        return self.time()

    def midnight(self) -> None:
        """The day begins now."""
        self._midnight = self.time()

    @property
    def now(self) -> float:
        """Seconds of the day since midnight."""
        return self.time() - self._midnight

    async def until(self, moment: float) -> None:
        """Wait for a moment of the day; not at all if it has passed."""
        await asyncio.sleep(max(0.0, (moment - self.now) / self.factor))


def clock_text(moment: float) -> str:
    """A moment of the day for people: 14:05."""
    minutes = int(moment // MINUTE)
    return f"{minutes // 60:02}:{minutes % 60:02}"
