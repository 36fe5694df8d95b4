"""How far a fill has come, as its readers see it: how many bytes they may have, and the wait for more.

Waking hundreds of readers for every piece that arrives costs more than moving the bytes (PERFORMANCE 5), so they are
woken at the first bytes, after every WAKE_BYTES, a moment after the last piece, and at the end.
"""

from __future__ import annotations

import asyncio
from typing import Final

from proxy.oci.errors import RegistryError

HELD_BACK_BYTES: Final = 64 * 1024
"""The last piece of a blob, which no reader gets before the digest is verified."""

WAKE_BYTES: Final = 2 * 1024 * 1024
WAKE_SECONDS: Final = 0.02


class Progress:
    """State changes are synchronous; only `changed` waits. Used on the event loop alone."""

    def __init__(self) -> None:
        self.size: int | None = None
        """Bytes of the whole blob, once known."""
        self.received = 0
        self.verified = False
        self.error: RegistryError | None = None
        self._announced = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def ended(self) -> bool:
        """Whether the fill has succeeded or failed."""
        return self.verified or self.error is not None

    @property
    def visible(self) -> int:
        """The bytes that readers may have by now."""
        if self.verified:
            return self.received
        return 0 if self.size is None else max(0, min(self.received, self.size - HELD_BACK_BYTES))

    def sized(self, size: int) -> None:
        """The whole blob's size is known: headers can be sent."""
        self.size = size
        self._wake()

    def advanced(self, received: int) -> None:
        """That many bytes are in the file."""
        self.received = received
        if self._announced == 0 or received - self._announced >= WAKE_BYTES:
            self._wake()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WAKE_SECONDS, self._wake)

    def succeed(self) -> None:
        """The digest is verified: all of it may be read."""
        self.verified = True
        self.size = self.received
        self._wake()

    def fail(self, error: RegistryError) -> None:
        """No more will come; every reader learns why."""
        self.error = error
        self._wake()

    async def changed(self) -> None:
        """Wait for progress, success or failure."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._announced = self.received
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
