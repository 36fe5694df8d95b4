"""A client of another process, as the answering code of the host sees it.

`FarClient` stands where a connection does, `FarWriter` where aiohttp writes. What is written becomes messages, and a
large body a file and how far it can be sent by now (`messages`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Final

from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from proxy.oci.names import Digest
from proxy.server.access_log import Exchange
from proxy.server.carrier import Carrier
from proxy.server.pump import Continued, Sendable
from proxy.workers.kept import Kept
from proxy.workers.messages import MAX_PIECE_BYTES, Answer, Ask, Done, File, Kind, written_offset

Send = Callable[[Kind, bytes, int | None], None]
"""Says something of this request; the descriptor is taken over."""


class FarClient(Carrier):
    """One request of a client that another process serves. Used on the event loop."""

    sockname: Final = None

    def __init__(self, ask: Ask, send: Send, edition: Callable[[], int]) -> None:
        """`edition` is that of the board."""
        super().__init__()
        self.alone: bytes | None = ask.head
        self.peername = (ask.peer, 0)
        self.ssl_context = ask.secure or None
        """Whether there is one is all that aiohttp wants to know."""
        self._sent = ask.sent
        self._send = send
        self._broken = self._complete = False
        self._done: Done | None = None
        self._turns: asyncio.Queue[None] = asyncio.Queue()
        self._edition = edition
        self._kept: Kept | None = None

    @property
    def transport(self) -> FarClient:
        """As a connection has one."""
        return self

    def close(self) -> None:
        """The connection ends with this answer, which says so."""

    def abort(self) -> None:
        """End the connection without another byte."""
        if not self.is_closing():
            self._broken = True
            self._send(Kind.BROKEN, b"", None)

    def end(self) -> None:
        """The answer is over: if not all of it was given, so is the connection."""
        if not self._complete:
            self.abort()

    def is_closing(self) -> bool:
        """Whether nothing that is written arrives."""
        return self._broken or self._done is not None

    def keep(self, digest: Digest, exchange: Exchange, until: float) -> None:
        """See Carrier. To be said before the answer is written."""
        self._kept = Kept(self._edition(), digest, exchange, until)

    # What the other process says

    def next(self) -> None:
        """What came of the body was sent."""
        self._turns.put_nowait(None)

    def done(self, done: Done) -> None:
        """Nothing more is wanted."""
        self._done = done
        self._complete = True
        self._turns.put_nowait(None)

    # What is answered

    def answer(self, head: bytes, body: bytes = b"", more: int = 0) -> None:
        """The head, with all of a small body. Raises ConnectionError."""
        kept = self._kept.written() if self._kept is not None and not more else None
        self._say(Kind.ANSWER, Answer(head, body, more, kept).written())
        self._complete = not more

    async def whole(self, head: bytes, body: bytes) -> None:
        """An answer whose body is in memory. Raises ConnectionError."""
        if len(body) <= MAX_PIECE_BYTES and not self._sent:
            return self.answer(head, body)
        self.answer(head, more=len(body))
        for start in range(self._sent, len(body), MAX_PIECE_BYTES):
            self._say(Kind.PIECE, body[start : start + MAX_PIECE_BYTES])
            if not await self._wants_more():
                return

    async def carry(self, content: Sendable, start: int, stop: int, moved: Callable[[int], None]) -> None:
        """See Carrier."""
        try:
            offset = start + self._sent
            if content.fd >= 0:
                offset = await self._carry_file(content, start, offset, stop)
            if offset < stop:
                await self._carry_rest(content, offset, stop)
        finally:
            if self._done is not None:
                moved(max(0, self._done.sent - self._sent))

    async def _carry_file(self, content: Sendable, start: int, offset: int, stop: int) -> int:
        """What comes by the file. Returns where that ends: at `stop`, when all was sent."""
        visible = min(stop, await content.visible(offset))
        if visible == offset:
            return offset
        # An open file of its own: the lock that ours may hold must not outlive this process.
        fd = os.open(f"/proc/self/fd/{content.fd}", os.O_RDONLY | os.O_CLOEXEC)
        self._say(Kind.FILE, File(start, visible).written(), fd)
        while await self._wants_more():
            offset = visible
            visible = min(stop, await content.visible(offset))
            if visible == offset:
                return offset
            self._say(Kind.VISIBLE, written_offset(visible))
        return stop

    async def _carry_rest(self, content: Sendable, offset: int, stop: int) -> None:
        if not isinstance(content, Continued):
            raise ConnectionAbortedError("the content ended early")
        async with aclosing(content.rest(offset, stop)) as pieces:
            async for piece in _small(pieces):
                self._say(Kind.PIECE, piece)
                if not await self._wants_more():
                    return
        raise ConnectionAbortedError("the content ended early")

    async def _wants_more(self) -> bool:
        """Whether it does, once that is known. Raises ConnectionError when the client has left."""
        await self._turns.get()
        if self._done is not None and self._done.left:
            raise ConnectionAbortedError("the client has left")
        return self._done is None

    def _say(self, kind: Kind, content: bytes, fd: int | None = None) -> None:
        if self.is_closing():
            if fd is not None:
                os.close(fd)
            raise ConnectionResetError("the client has left")
        self._send(kind, content, fd)


class FarWriter(AbstractStreamWriter):
    """What aiohttp writes an answer to. A body that comes in a way of its own is announced by `drain`."""

    def __init__(self, client: FarClient) -> None:
        self._client = client
        self._head = b""
        self._body = bytearray()
        self._answered = False

    async def write_headers(self, status_line: str, headers: CIMultiDict[str]) -> None:
        lines = [status_line, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self._head = "\r\n".join(lines).encode()

    async def drain(self) -> None:
        """The head is all that was written; a body of the announced length is carried after it."""
        self._answered = True
        self._client.answer(self._head, more=self.length or 0)

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        self._body += chunk

    async def write_eof(self, chunk: bytes = b"") -> None:
        if not self._answered:
            self._answered = True
            await self._client.whole(self._head, bytes(self._body) + chunk)

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None:
        raise NotImplementedError("no answer is compressed")

    def enable_chunking(self) -> None:
        raise NotImplementedError("the length of every answer is known")


async def _small(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """None larger than a message may be."""
    async for each in pieces:
        for start in range(0, len(each), MAX_PIECE_BYTES):
            yield each[start : start + MAX_PIECE_BYTES]
