"""Large bodies arrive in a thread of their own: read in big pieces, written and hashed at once, off the event loop.

The event loop learns of progress when it matters: at the first bytes, after every ANNOUNCE_BYTES, when nothing more
arrives for a moment, and at the end. One thread for each transfer and never the shared pool, where a few downloads
would keep every small piece of work waiting (PERFORMANCE 4).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from proxy.store.partial import Partial
from proxy.store.threads import in_thread

PIECE_BYTES: Final = 1024 * 1024
ANNOUNCE_BYTES: Final = 2 * 1024 * 1024
PAUSE_SECONDS: Final = 0.01
"""Nothing for so long, and what has arrived is announced."""


class RawBody(Protocol):
    """The rest of a body, to be received in a thread."""

    @property
    def left(self) -> int:
        """Bytes that are still to come."""

    def receive(self, into: memoryview, timeout: float | None) -> int:
        """Blocking. How many bytes came, 0 after `timeout` seconds without any. Raises RegistryError: when the body
        breaks off and, without `timeout`, when upstream says nothing for too long."""

    def interrupt(self) -> None:
        """End a `receive` that is waiting in another thread."""


class Transfers:
    """Receives bodies in threads, at most `limit` at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running = 0
        self._threads = ThreadPoolExecutor(limit, "transfer")

    @property
    def available(self) -> bool:
        """Whether another transfer can start at once."""
        return self._running < self._limit

    async def receive(self, body: RawBody, partial: Partial, advanced: Callable[[int], None]) -> None:
        """Append all that is left of the body; `advanced` is told the length, on the loop. Raises what both raise."""
        loop = asyncio.get_running_loop()

        def announce() -> None:
            loop.call_soon_threadsafe(advanced, partial.length)

        self._running += 1
        try:
            await in_thread(self._threads, lambda: _receive(body, partial, announce), body.interrupt)
        finally:
            self._running -= 1
            advanced(partial.length)

    def close(self) -> None:
        """Wait for the threads to end."""
        self._threads.shutdown()


def _receive(body: RawBody, partial: Partial, announce: Callable[[], None]) -> None:
    buffer = memoryview(bytearray(min(PIECE_BYTES, body.left)))
    announced = -1
    while body.left:
        received = body.receive(buffer, PAUSE_SECONDS)
        if not received:
            announce()
            received = body.receive(buffer, None)
        partial.write(buffer[:received])
        if announced < 0 or partial.length - announced >= ANNOUNCE_BYTES:
            announced = partial.length
            announce()
