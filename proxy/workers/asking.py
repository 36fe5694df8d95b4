"""One request as a server has it with the host: asked, answered, and asked again when the host has died meanwhile.

The next host is asked the same request, and told how much of the body is with the client. It goes on only if the answer
is the same: the same status, the same content, the same length. Otherwise the connection ends, and the client asks
again itself, as it does when a connection breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Final

from proxy.oci.errors import Unavailable
from proxy.workers.line import Line
from proxy.workers.messages import Answer, Ask, Done, File, Kind, read_offset

PATIENCE_SECONDS: Final = 10.0
"""How long the host may be away."""
MOST_HOSTS: Final = 3
"""How many hosts one request may see. Perhaps it is the request that they die of."""

_SAME: Final = (b"content-length", b"content-range", b"docker-content-digest", b"etag")


class _Lost(Exception):
    """The host has gone."""


class Asking:
    """See above. `await answer()`, then the body by `first`, `visible` and `rest` (a `Continued`), then `close`."""

    def __init__(self, line: Line, ask: Ask) -> None:
        self._line = line
        self._ask = ask
        self._number = 0
        self._hosts = 0
        self._heard: deque[tuple[Kind, bytes, int | None]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_lost = False
        self._is_open = False
        """Whether the host still works on it."""
        self._answer: Answer | None = None
        self._start = 0
        self._visible = 0
        self._piece = b""
        self.fd = -1
        """The open file of the body, if it has one."""

    async def answer(self) -> Answer:
        """What the host answers. Raises Unavailable if there is none, ConnectionError if it ends the connection."""
        while True:
            with contextlib.suppress(_Lost):
                await self._begin()
                self._answer = Answer.read(await self._next(Kind.ANSWER))
                self._is_open = self._answer.more > 0
                return self._answer

    async def first(self) -> int:
        """The place in the file where the body begins; 0 if there is no file. Raises as `visible` does."""
        try:
            await self._take()
        except _Lost:
            await self._ask_again(0)
        return self._start

    # As the pump sees it

    async def visible(self, offset: int) -> int:
        """Where what can be sent ends. Raises ConnectionError, and Unavailable."""
        while offset >= self._visible and not self._piece:
            try:
                self._line.say(Kind.NEXT, self._number)
                await self._take()
            except _Lost:
                start = self._start
                await self._ask_again(offset - start)
                if self._start != start:
                    raise ConnectionAbortedError("the next host has the content in another place") from None
        return offset if self._piece else self._visible

    async def rest(self, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """What comes in no file. Raises ConnectionError, and Unavailable."""
        offset = start
        while True:
            piece, self._piece = self._piece, b""
            yield piece
            offset += len(piece)
            if offset >= stop:
                return
            if await self.visible(offset) != offset:
                raise ConnectionAbortedError("the next host has the content in a file")

    def close(self, sent: int, *, left: bool) -> None:
        """The request is over: so many bytes of the body were sent."""
        if self._is_open:
            self._line.say(Kind.DONE, self._number, Done(sent, left).written())
        self._line.forget(self._number)
        for _, _, fd in self._heard:
            _close(fd)
        self._heard.clear()
        self._drop_file()

    # As the line sees it

    def heard(self, kind: Kind, content: bytes, fd: int | None) -> None:
        """See `line.Asking`."""
        self._heard.append((kind, content, fd))
        self._wake()

    def lost(self) -> None:
        """See `line.Asking`."""
        self._is_lost = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _begin(self) -> None:
        """Ask, once there is a host. Raises Unavailable."""
        self._hosts += 1
        if self._hosts > MOST_HOSTS:
            raise Unavailable("the cache failed several times while it answered this", retry_after=5)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._line.up()
        except TimeoutError:
            raise Unavailable("the cache is being restarted", retry_after=5) from None
        self._is_lost = False
        self._line.forget(self._number)
        self._number = self._line.ask(self)
        self._is_open = True
        self._line.say(Kind.ASK, self._number, self._ask.written())

    async def _ask_again(self, sent: int) -> None:
        """Ask the next host, for the rest. Raises ConnectionError if that would be the rest of something else."""
        before = self._answer
        assert before is not None
        self._ask = replace(self._ask, sent=sent)
        while True:
            answer = await self.answer()
            if answer.more != before.more or _content(answer.head) != _content(before.head):
                raise ConnectionAbortedError("the next host answers otherwise")
            with contextlib.suppress(_Lost):
                return await self._take()

    async def _take(self) -> None:
        """What comes next of the body. Raises _Lost and ConnectionError."""
        kind, content, fd = await self._message()
        if kind is Kind.FILE and fd is not None:
            file = File.read(content)
            self._drop_file()
            self.fd, self._start, self._visible = fd, file.start, file.visible
        elif kind is Kind.VISIBLE:
            self._visible = read_offset(content)
        elif kind is Kind.PIECE:
            self._piece = content
        else:
            _close(fd)
            raise ConnectionAbortedError("the host ends the connection")

    async def _next(self, wanted: Kind) -> bytes:
        kind, content, fd = await self._message()
        if kind is not wanted:
            _close(fd)
            raise ConnectionAbortedError("the host ends the connection")
        return content

    async def _message(self) -> tuple[Kind, bytes, int | None]:
        while not self._heard:
            if self._is_lost:
                raise _Lost
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._heard.popleft()

    def _drop_file(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _content(head: bytes) -> list[bytes]:
    """What of the head of an answer says which bytes its body is."""
    status, *lines = head.lower().split(b"\r\n")
    return [status, *sorted(line for line in lines if line.partition(b":")[0] in _SAME)]


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
