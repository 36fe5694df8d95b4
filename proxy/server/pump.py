"""How bulk bytes leave: straight from the file to the socket (`sendfile`), or encrypted on their way, but fairly.

With many fast readers, one turn of the event loop would cost the sum of what all their sockets take, and a small
request beside them would wait for it. So every bulk response of the process is sent by one pump, which moves at most
TURN_BYTES in a turn of the loop and lets everything else run in between (PERFORMANCE 3).

The pump works on a duplicate of the socket's descriptor: the connection may be closed under it at any time, and a
number that was closed could by then be another client's connection.

It writes to the socket itself under TLS too (`Tls.direct`): asyncio's own way there would read 16 KiB at a time in a
thread (PERFORMANCE 9), and hold what nobody could measure a client by.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, nullcontext
from typing import Final, Protocol, runtime_checkable

from proxy.server.floor import FLOOR, Floor, TooSlow, unacknowledged
from proxy.server.stretches import FileStretch, MemoryStretch, SealedStretch, Stretch
from proxy.server.tls import Tls

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


class _Way:
    """To one client: a socket, and what its bytes go through, if anything."""

    def __init__(self, sink: int, tls: Tls | None) -> None:
        self.sink = sink
        self._tls = tls

    def stretch(self, source: int | bytes, offset: int, stop: int) -> Stretch:
        """A part of a file or of memory that is to go there."""
        done = asyncio.get_running_loop().create_future()
        if self._tls is not None:
            return SealedStretch(self.sink, source, offset, stop, done, self._tls.seal)
        if isinstance(source, bytes):
            return MemoryStretch(self.sink, source, done)
        return FileStretch(self.sink, source, offset, stop, done)


class _Watch:
    """Over one stretch: its client takes what the floor asks for, or is given up."""

    def __init__(self, job: Stretch, floor: Floor) -> None:
        self._job = job
        self._floor = floor
        self._taken = 0
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._begin()

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        if not self._job.done.done():
            self._taken = self._job.sent - unacknowledged(self._job.sink)
            self._timer = asyncio.get_running_loop().call_later(self._floor.seconds, self._check)

    def _check(self) -> None:
        before = self._taken
        self._begin()
        if not self._job.done.done() and self._taken - before < self._floor.bytes:
            self._job.done.set_exception(TooSlow("the client takes too few bytes, or none"))


class Pump:
    """One for each event loop. A client that takes less than `floor` is given up."""

    def __init__(self, floor: Floor = FLOOR) -> None:
        self._floor = floor
        self._ready: deque[Stretch] = deque()
        self._budget = TURN_BYTES
        self._scheduled = False

    async def send(
        self, transport: asyncio.Transport, content: Sendable, start: int, stop: int, moved: Callable[[int], None]
    ) -> None:
        """Send the bytes from `start` to `stop`, on a transport whose own buffer is empty; `moved` is told how many.

        Raises RegistryError when the content fails, ConnectionError when the client has left, TooSlow if it is that.
        """
        tls = transport if isinstance(transport, Tls) else None
        way = _Way(os.dup(transport.get_extra_info("socket").fileno()), tls)
        try:
            with tls.direct() if tls is not None else nullcontext():
                await self._send(way, content, start, stop, moved)
        finally:
            os.close(way.sink)

    async def _send(self, way: _Way, content: Sendable, offset: int, stop: int, moved: Callable[[int], None]) -> None:
        while offset < stop:
            end = min(stop, await content.visible(offset))
            if end == offset:
                return await self._pass_on(way, content, offset, stop, moved)
            await self._move(way.stretch(content.fd, offset, end), moved)
            offset = end

    async def _pass_on(
        self, way: _Way, content: Sendable, offset: int, stop: int, moved: Callable[[int], None]
    ) -> None:
        """What is not in the file, as it comes in: no more of it is asked for than the client takes."""
        if isinstance(content, Continued):
            async with aclosing(content.rest(offset, stop)) as pieces:
                async for piece in pieces:
                    await self._move(way.stretch(piece, 0, len(piece)), moved)
                    offset += len(piece)
        if offset != stop:
            raise ConnectionAbortedError("the content ended early")

    async def _move(self, job: Stretch, moved: Callable[[int], None]) -> None:
        start = job.offset
        try:
            if self._budget > 0 and not self._ready:
                self._step(job)
            else:
                self._queue(job)
            with _Watch(job, self._floor):
                await job.done
        finally:
            job.done.cancel()
            self._unwatch(job)
            moved(job.offset - start)

    def _queue(self, job: Stretch) -> None:
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

    def _writable(self, job: Stretch) -> None:
        """The socket of a job takes more: now, if this turn has budget left."""
        if self._budget > 0 and not self._ready:
            self._step(job)
        else:
            self._unwatch(job)
            self._queue(job)

    def _step(self, job: Stretch) -> None:
        """Move what the socket takes. The next turn has a budget of its own."""
        if job.done.done():
            return
        self._schedule()
        before = job.sent
        try:
            takes_more = job.push(max(1, self._budget // job.weight))
        except BlockingIOError:
            takes_more = False
        except ConnectionAbortedError as error:
            job.done.set_exception(error)
            return
        except OSError as error:
            job.done.set_exception(ConnectionAbortedError(f"the connection broke: {error.strerror}"))
            return
        self._budget -= (job.sent - before) * job.weight
        if job.offset == job.stop:
            job.done.set_result(None)
        elif takes_more:
            self._unwatch(job)
            self._ready.append(job)
        elif not job.watched:  # It stays watched while it takes a part each time: that is cheaper than to begin anew.
            job.watched = True
            asyncio.get_running_loop().add_writer(job.sink, self._writable, job)

    def _unwatch(self, job: Stretch) -> None:
        if job.watched:
            job.watched = False
            asyncio.get_running_loop().remove_writer(job.sink)
