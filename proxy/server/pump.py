"""How bulk bytes leave: straight from the file to the socket (`sendfile`), fairly.

With many fast readers, one turn of the event loop would cost the sum of what all their sockets take, and a small
request beside them would wait for it. So every bulk response of the process is sent by one pump, which moves at most
TURN_BYTES in a turn of the loop and lets everything else run in between (PERFORMANCE 3).

The pump works on a duplicate of the socket's descriptor: the connection may be closed under it at any time, and a
number that was closed could by then be another client's connection.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, Protocol, runtime_checkable

from proxy.server.floor import FLOOR, Floor, TooSlow, unacknowledged

TURN_BYTES: Final = 2 * 1024 * 1024


class Sendable(Protocol):
    """Content in an open file, all there or still arriving."""

    @property
    def fd(self) -> int: ...

    async def visible(self, offset: int) -> int:
        """Where the bytes from `offset` that can be sent now end; waits until there is one. Raises RegistryError.

        `offset` itself if no more will come by the file.
        """


@runtime_checkable
class Continued(Sendable, Protocol):
    """Content of which the file may hold only a part."""

    def rest(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """What does not come by the file. Raises RegistryError."""


class _Job:
    """A stretch of a file, or of memory, on its way to a socket."""

    __slots__ = ("done", "offset", "sink", "source", "stop", "watched")

    def __init__(self, sink: int, source: int | memoryview, offset: int, stop: int, done: asyncio.Future[None]) -> None:
        self.sink = sink
        self.source = source
        self.offset = offset
        self.stop = stop
        self.done = done
        self.watched = False
        """Whether the loop tells when the socket takes more."""


class Pump:
    """One for each event loop. A client that takes less than `floor` is given up."""

    def __init__(self, floor: Floor = FLOOR) -> None:
        self._floor = floor
        self._ready: deque[_Job] = deque()
        self._budget = TURN_BYTES
        self._scheduled = False

    async def send(
        self, transport: asyncio.Transport, content: Sendable, start: int, stop: int, moved: Callable[[int], None]
    ) -> None:
        """Send the bytes from `start` to `stop`, on a transport whose own buffer is empty; `moved` is told how many.

        Raises RegistryError when the content fails, ConnectionError when the client has left, TooSlow if it is that.
        """
        sink = os.dup(transport.get_extra_info("socket").fileno())
        try:
            offset = start
            while offset < stop:
                end = min(stop, await content.visible(offset))
                if end == offset:
                    return await self._pass_on(sink, content, offset, stop, moved)
                await self._move(sink, content.fd, offset, end, moved)
                offset = end
        finally:
            os.close(sink)

    async def _pass_on(
        self, sink: int, content: Sendable, offset: int, stop: int, moved: Callable[[int], None]
    ) -> None:
        """What is not in the file, as it comes in: no more of it is asked for than the client takes."""
        if isinstance(content, Continued):
            async with aclosing(content.rest(offset, stop)) as pieces:
                async for piece in pieces:
                    await self._move(sink, memoryview(piece), 0, len(piece), moved)
                    offset += len(piece)
        if offset != stop:
            raise ConnectionAbortedError("the content ended early")

    async def _move(
        self, sink: int, source: int | memoryview, offset: int, stop: int, moved: Callable[[int], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        job = _Job(sink, source, offset, stop, loop.create_future())
        self._queue(job)
        try:
            taken = offset - unacknowledged(sink)
            while not job.done.done():
                await asyncio.wait([job.done], timeout=self._floor.seconds)
                before, taken = taken, job.offset - unacknowledged(sink)
                if not job.done.done() and taken - before < self._floor.bytes:
                    raise TooSlow("the client takes too few bytes, or none")
            job.done.result()
        finally:
            job.done.cancel()
            self._unwatch(job)
            moved(job.offset - offset)

    def _queue(self, job: _Job) -> None:
        self._ready.append(job)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        """A turn of the loop begins: those that had to wait for it come first."""
        self._scheduled = False
        self._budget = TURN_BYTES
        while self._ready and self._budget > 0:
            self._step(self._ready.popleft())

    def _writable(self, job: _Job) -> None:
        """The socket of a job takes more: now, if this turn has budget left."""
        if self._budget > 0 and not self._ready:
            self._step(job)
        else:
            self._unwatch(job)
            self._queue(job)

    def _step(self, job: _Job) -> None:
        """Move what the socket takes. The next turn has a budget of its own."""
        if job.done.done():
            return
        self._schedule()
        wanted = min(job.stop - job.offset, self._budget)
        try:
            if isinstance(job.source, int):
                moved = os.sendfile(job.sink, job.source, job.offset, wanted)
            else:
                moved = os.write(job.sink, job.source[job.offset : job.offset + wanted])
        except BlockingIOError:
            moved = 0
        except OSError as error:
            job.done.set_exception(ConnectionAbortedError(f"the connection broke: {error.strerror}"))
            return
        else:
            if moved == 0:
                job.done.set_exception(ConnectionAbortedError("the file ended early"))
                return
        job.offset += moved
        self._budget -= moved
        if job.offset == job.stop:
            job.done.set_result(None)
        elif moved == wanted:
            self._unwatch(job)
            self._ready.append(job)
        elif not job.watched:  # It stays watched while it takes a part each time: that is cheaper than to begin anew.
            job.watched = True
            asyncio.get_running_loop().add_writer(job.sink, self._writable, job)

    def _unwatch(self, job: _Job) -> None:
        if job.watched:
            job.watched = False
            asyncio.get_running_loop().remove_writer(job.sink)
