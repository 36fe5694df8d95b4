"""Writing while receiving: what has arrived is written in a thread while the next pieces arrive.

At most one write runs at a time, so that bytes are hashed in order; what arrives meanwhile gathers into the next one.
So the first bytes are on disk at once, and a fast transfer makes few, large writes by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from proxy.store.fills.partial import Partial

GATHER_BYTES: Final = 1024 * 1024
"""How much may wait for the running write before the transfer has to."""


class WriteBehind:
    """Feeds one partial file; `advanced` is called on the loop with its new length after every write."""

    def __init__(self, partial: Partial, executor: Executor, advanced: Callable[[int], None]) -> None:
        self._partial = partial
        self._executor = executor
        self._advanced = advanced
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._writing: asyncio.Future[int] | None = None
        self._error: BaseException | None = None

    async def feed(self, content: bytes) -> None:
        """Take the next bytes; waits while too much is gathered. Raises OSError of an earlier write."""
        self._raise()  # First: what follows a write that failed would stand at the wrong place.
        self._gathered.append(content)
        self._gathered_bytes += len(content)
        if self._writing is None:
            self._write()
        while self._gathered_bytes >= GATHER_BYTES and self._writing is not None:
            await asyncio.wait([self._writing])
        self._raise()

    async def drain(self) -> None:
        """Wait until all that was fed is written. Raises OSError."""
        while self._writing is not None:
            await asyncio.wait([self._writing])
        self._raise()

    def _write(self) -> None:
        content = b"".join(self._gathered)
        self._gathered.clear()
        self._gathered_bytes = 0
        self._writing = asyncio.get_running_loop().run_in_executor(self._executor, self._partial.write, content)
        self._writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Future[int]) -> None:
        self._writing = None
        self._error = writing.exception()
        if self._error is not None:
            self._gathered.clear()
            self._gathered_bytes = 0
            return
        self._advanced(self._partial.length)
        if self._gathered:
            self._write()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
