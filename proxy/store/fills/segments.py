"""The rest of a blob in segments, fetched over several connections and put together in order.

A segment that breaks, or that is stuck, is asked for again from where it is while the others go on. Only when that does
not help is all of it given up, and the fill goes on over one connection. What arrives before its turn waits in a
scratch file; connections do not run further ahead than its `slots` segments.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from proxy.oci.errors import RegistryError, Unavailable
from proxy.policy.segments import patience
from proxy.store.fills.partial import Partial
from proxy.store.fills.scratch import Scratch, ScratchFailed
from proxy.store.fills.source import Attempts, Body, Parts
from proxy.store.threads import in_thread

SEGMENT_BYTES: Final = 8 * 1024 * 1024
HEADSTART_BYTES: Final = 2 * SEGMENT_BYTES
"""What the first connection still brings, so that readers do not wait while the further ones are made."""

_PROOF_SECONDS: Final = 2.0
_MAX_PAUSE_SECONDS: Final = 60.0
_PIECE_BYTES: Final = 256 * 1024
_GATHERED_BYTES: Final = 256 * 1024
_MAX_PIECES: Final = 256
_GATHERED_SECONDS: Final = 0.02
"""What comes in small pieces is written in larger ones, but not kept from readers for longer."""
_COPIED_BYTES: Final = 2 * 1024 * 1024
"""What is hashed and written in one go, before readers learn of it."""


@dataclass(slots=True, eq=False)
class Segment:
    """Some bytes of the blob, of which so many have been received."""

    start: int
    stop: int
    received: int = 0
    attempts: Attempts = field(default_factory=Attempts)

    def __repr__(self) -> str:
        return f"<Segment {self.start}-{self.stop}, {self.received} received>"

    @property
    def position(self) -> int:
        """Where the received bytes end."""
        return self.start + self.received


class Queue:
    """Which segment is fetched next. Synchronous; the segments up to the first that is not whole are in order."""

    def __init__(self, start: int, stop: int, slots: int) -> None:
        self.start = self._next = start
        self._stop = stop
        self._slots = slots
        self._ahead: deque[Segment] = deque()
        self._given_back: list[Segment] = []

    @property
    def first(self) -> Segment | None:
        """The segment whose turn it is; None before it is taken, and at the end."""
        return self._ahead[0] if self._ahead else None

    @property
    def ended(self) -> bool:
        """Whether every segment is in its place."""
        return not self._ahead and self._next >= self._stop

    def take(self) -> Segment | None:
        """The earliest that nobody fetches; None while there is no slot for one, and if all were taken."""
        if self._given_back:
            earliest = min(self._given_back, key=lambda each: each.start)
            self._given_back.remove(earliest)
            return earliest
        if self._next >= self._stop or len(self._ahead) >= self._slots:
            return None
        segment = Segment(self._next, min(self._next + SEGMENT_BYTES, self._stop))
        self._next = segment.stop
        self._ahead.append(segment)
        return segment

    def give_back(self, segment: Segment) -> None:
        """Somebody else may go on with it."""
        self._given_back.append(segment)

    def place(self, offset: int) -> int:
        """Where this byte of the blob waits in the scratch file."""
        return (offset - self.start) % (self._slots * SEGMENT_BYTES)

    def shift(self) -> None:
        """The first segment is in its place."""
        self._ahead.popleft()


class Segments:
    """The running connections of one blob; `rate` is what the first one brought, in bytes a second."""

    def __init__(
        self, queue: Queue, parts: Parts, target: Partial, scratch: Scratch, executor: Executor, rate: float
    ) -> None:
        self.start = queue.start
        self.begun = False
        """Whether upstream has answered with a segment."""
        self._queue = queue
        self._parts = parts
        self._target = target
        self._scratch = scratch
        self._executor = executor
        self._rate = rate
        self._buffer = memoryview(bytearray(_PIECE_BYTES))
        self._error: RegistryError | None = None
        self._change = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def connect(self, *, further: bool) -> None:
        """Fetch over one more connection: a `further` one, besides the first, or in its stead."""
        name = f"segments from {self.start}"
        self._tasks.append(asyncio.get_running_loop().create_task(self._connection(further), name=name))

    async def aclose(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def prove(self) -> bool:
        """Whether upstream takes further connections, as soon as that is known, or next to at once."""
        try:
            async with asyncio.timeout(_PROOF_SECONDS):
                while not self.begun and self._error is None and not all(task.done() for task in self._tasks):
                    await self._changed()
        except TimeoutError:
            return False
        return self.begun and self._error is None

    async def append(self, advanced: Callable[[int], None]) -> None:
        """Put all of it in order into the file. Raises Unavailable once nothing more comes, and OSError."""
        while not self._queue.ended:
            segment = self._queue.first
            if segment is not None and segment.position > self._target.length:
                await in_thread(self._executor, partial(self._copy, segment.position))
                advanced(self._target.length)
                if self._target.length == segment.stop:
                    self._queue.shift()
                    self._wake()
            elif self._error is not None:
                raise await self._broken(self._error)
            else:
                await self._changed()

    async def _broken(self, error: RegistryError) -> Unavailable:
        if isinstance(error, Unavailable):
            return error
        # Asked by one connection it may be otherwise, but not before the time that upstream names.
        await asyncio.sleep(min(error.retry_after or 0.0, _MAX_PAUSE_SECONDS))
        return Unavailable(error.message)

    def _copy(self, stop: int) -> None:
        """Blocking. Raises OSError of the partial file."""
        stop = min(stop, self._target.length + _COPIED_BYTES)
        buffer = self._buffer
        while (left := stop - self._target.length) > 0:
            read = self._scratch.read(self._queue.place(self._target.length), buffer[:left])
            if not read:
                raise ScratchFailed("the cache cannot read what it had received")
            self._target.write(buffer[:read])

    async def _connection(self, further: bool) -> None:
        try:
            while not self._queue.ended and self._error is None:
                if further and not self._parts.welcome():
                    return
                segment = self._queue.take()
                if segment is None:
                    await self._changed()
                else:
                    await self._fetch_once(segment, further)
        except RegistryError as error:
            self._error = self._error or error
        except BaseException:
            self._error = self._error or Unavailable("the cache failed while fetching over several connections")
            raise
        finally:
            self._wake()

    async def _fetch_once(self, segment: Segment, further: bool) -> None:
        """Raises RegistryError if the segment should not be asked for again."""
        before, pause = segment.received, 0.0
        try:
            async with asyncio.timeout(patience(segment.stop - segment.position, self._rate)):
                await self._receive(segment, further)
            return
        except TimeoutError:
            error = Unavailable("a segment is stuck")
        except ScratchFailed:
            raise
        except Unavailable as broken:
            if self._parts.refused:
                raise
            error = broken
        pause = segment.attempts.failed(segment, error, segment.received - before)
        await asyncio.sleep(pause)
        self._queue.give_back(segment)
        self._wake()

    async def _receive(self, segment: Segment, further: bool) -> None:
        async with self._parts.open(segment.position, segment.stop, further=further) as body:
            self.begun = True
            self._wake()
            while segment.position < segment.stop:
                pieces = await _gathered(body, segment.stop - segment.position)
                place = self._queue.place(segment.position)
                segment.received += await in_thread(self._executor, partial(self._scratch.write, place, pieces))
                if segment is self._queue.first:
                    self._wake()

    async def _changed(self) -> None:
        await self._change.wait()

    def _wake(self) -> None:
        self._change.set()
        self._change = asyncio.Event()


async def _gathered(body: Body, left: int) -> list[bytes]:
    """The next bytes of a segment of which so many are still to come. Raises RegistryError."""
    pieces = [await body.read()]
    gathered = len(pieces[0])
    with suppress(TimeoutError):
        async with asyncio.timeout(_GATHERED_SECONDS):
            while pieces[-1] and gathered < min(left, _GATHERED_BYTES) and len(pieces) < _MAX_PIECES:
                pieces.append(await body.read())
                gathered += len(pieces[-1])
    if not pieces[-1]:
        raise Unavailable("a segment ended early")
    return pieces
