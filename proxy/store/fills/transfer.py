"""Large bodies arrive in a thread of their own: read in big pieces, written and hashed at once, off the event loop.

The event loop learns of progress when it matters: at the first bytes, after every ANNOUNCE_BYTES or ANNOUNCE_SECONDS,
when nothing more arrives for a moment, and at the end. It learns of bytes before they are hashed: while this thread
does that, the loop has the interpreter for itself.

One thread for each transfer and never the shared pool, where a few downloads would keep every small piece of work
waiting (PERFORMANCE 4).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, Protocol

from proxy.policy.segments import Speed
from proxy.store.fills.partial import Partial
from proxy.store.threads import in_thread

PIECE_BYTES: Final = 1024 * 1024
ANNOUNCE_BYTES: Final = 4 * 1024 * 1024
ANNOUNCE_SECONDS: Final = 0.02
"""Whichever comes first: the bytes with a fast upstream, the seconds with a slow one."""
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

    @contextmanager
    def place(self) -> Iterator[None]:
        """A thread that is there for one transfer; only while one is `available`."""
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def receive(
        self, body: RawBody, partial: Partial, advanced: Callable[[int], None], stop: int, speed: Speed | None = None
    ) -> None:
        """Append the body up to the blob's offset `stop`, or until `speed` is slow; the caller has a place.

        `advanced` is told the length, on the loop. Raises what body and file raise.
        """
        loop = asyncio.get_running_loop()

        def announce() -> None:
            loop.call_soon_threadsafe(advanced, partial.length)

        try:
            await in_thread(self._threads, lambda: _receive(body, partial, announce, stop, speed), body.interrupt)
        finally:
            advanced(partial.length)

    def close(self) -> None:
        """Wait for the threads to end."""
        self._threads.shutdown()


class _News:
    """When the loop is told what one transfer has written: not of each piece, which would cost more than moving it."""

    def __init__(self, partial: Partial, announce: Callable[[], None]) -> None:
        self._partial = partial
        self._announce = announce
        self._told = 0
        self._told_at = float("-inf")

    def written(self) -> None:
        """There is more."""
        is_much = self._partial.length - self._told >= ANNOUNCE_BYTES
        if is_much or time.monotonic() - self._told_at >= ANNOUNCE_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Tell all of it."""
        self._told, self._told_at = self._partial.length, time.monotonic()
        self._announce()


def _receive(body: RawBody, partial: Partial, announce: Callable[[], None], stop: int, speed: Speed | None) -> None:
    buffer = memoryview(bytearray(max(0, min(PIECE_BYTES, stop - partial.length))))
    news = _News(partial, announce)
    while body.left and partial.length < stop and not (speed is not None and speed.is_slow):
        into = buffer[: stop - partial.length]
        started = time.monotonic()
        received = body.receive(into, PAUSE_SECONDS)
        if not received:
            news.tell()
            received = body.receive(into, None)
        if speed is not None:
            speed.note(time.monotonic() - started, received, full=received == len(into))
        partial.write(into[:received], news.written)
