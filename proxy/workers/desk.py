"""Where the host answers what the servers ask.

Each request is one task, which ends with its answer: or with the client, or with the server, whichever leaves first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpRequestParser
from aiohttp.streams import EMPTY_PAYLOAD

from proxy.server.connection import MAX_FIELDS, request_of
from proxy.server.malformed import MAX_FIELD_BYTES, MAX_LINE_BYTES
from proxy.workers.far import FarClient, FarWriter
from proxy.workers.link import Link
from proxy.workers.messages import Ask, Done, Kind

log = logging.getLogger(__name__)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Counts = Callable[[bytes], None]
"""Takes what a server has answered by itself."""

FLUSH_SECONDS: Final = 1.0
"""How long whoever reads the figures waits for what the servers have counted."""
_CREDENTIALS: Final = struct.Struct("3i")
_READ_LIMIT: Final = 2**16


class Desk:
    """Listens to the servers: `start`, then `aclose`. It closes `sock`, in this process, at its end."""

    def __init__(self, sock: socket.socket, handler: Handler, counts: Counts, edition: Callable[[], int]) -> None:
        """`edition` is that of the board."""
        self._sock = sock
        self._edition = edition
        self._handler = handler
        self._counts = counts
        self._clerks: set[Clerk] = set()
        self._all_gone = asyncio.Event()
        self._all_gone.set()

    def __len__(self) -> int:
        """How many servers there are."""
        return len(self._clerks)

    async def start(self) -> None:
        """Listen, also to those who called before."""
        self._sock.setblocking(False)
        asyncio.get_running_loop().add_reader(self._sock, self._accept)

    async def flush(self) -> None:
        """Return when all that the servers have counted until now is counted here, or they are slow to say."""
        asked = [clerk.flushed() for clerk in self._clerks]
        if asked:
            await asyncio.wait(asked, timeout=FLUSH_SECONDS)

    async def deserted(self) -> None:
        """Wait until no server is left."""
        await self._all_gone.wait()

    async def aclose(self) -> None:
        """Break off what is being answered, and hang up."""
        asyncio.get_running_loop().remove_reader(self._sock)
        for clerk in list(self._clerks):
            await clerk.aclose()
        self._sock.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError:  # Nobody is there any more.
            return
        if _user(sock) != os.getuid():
            log.warning("a process of another user wanted to be a server of this cache")
            sock.close()
            return
        self._clerks.add(Clerk(sock, self._handler, self._counts, self._edition, self._left))
        self._all_gone.clear()

    def _left(self, clerk: Clerk) -> None:
        self._clerks.discard(clerk)
        if not self._clerks:
            self._all_gone.set()


class Clerk:
    """Answers one server."""

    def __init__(
        self,
        sock: socket.socket,
        handler: Handler,
        counts: Counts,
        edition: Callable[[], int],
        left: Callable[[Clerk], None],
    ) -> None:
        self._handler = handler
        self._edition = edition
        self._counts = counts
        self._left = left
        self._clients: dict[int, tuple[FarClient, asyncio.Task[None]]] = {}
        self._flushes: dict[int, asyncio.Future[None]] = {}
        self._flush_count = 0
        self._link = Link(sock, self)
        self._link.send(Kind.HELLO)

    def flushed(self) -> asyncio.Future[None]:
        """Done when the server has said what it counted until now."""
        self._flush_count += 1
        future = self._flushes[self._flush_count] = asyncio.get_running_loop().create_future()
        self._link.send(Kind.FLUSH, self._flush_count)
        return future

    async def aclose(self) -> None:
        """Hang up, and wait for the end of what was being answered."""
        tasks = [task for _, task in self._clients.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._link.close()

    def received(self, kind: Kind, number: int, content: bytes, fd: int | None) -> None:
        """See `link.Reader`."""
        if kind is Kind.ASK:
            self._asked(number, Ask.read(content))
        elif kind is Kind.NEXT and number in self._clients:
            self._clients[number][0].next()
        elif kind is Kind.DONE and number in self._clients:
            self._done(number, Done.read(content))
        elif kind is Kind.COUNTS:
            self._counts(content)
            self._flushed(number)

    def ended(self) -> None:
        """See `link.Reader`."""
        for number in list(self._clients):
            self._done(number, Done(0, left=True))
        for number in list(self._flushes):
            self._flushed(number)
        self._left(self)

    def _flushed(self, number: int) -> None:
        future = self._flushes.pop(number, None)
        if future is not None and not future.done():
            future.set_result(None)

    def _asked(self, number: int, ask: Ask) -> None:
        client = FarClient(ask, partial(self._say, number), self._edition)
        task = asyncio.get_running_loop().create_task(self._answer(client, ask))
        self._clients[number] = client, task
        task.add_done_callback(lambda done: self._answered(number, client))

    def _say(self, number: int, kind: Kind, content: bytes, fd: int | None) -> None:
        self._link.send(kind, number, content, fd)

    def _done(self, number: int, done: Done) -> None:
        """As with a connection of our own, a client that leaves ends the work for it at once."""
        client, task = self._clients[number]
        client.done(done)
        if done.left:
            task.cancel()

    def _answered(self, number: int, client: FarClient) -> None:
        del self._clients[number]
        client.end()

    async def _answer(self, client: FarClient, ask: Ask) -> None:
        try:
            request = _request(client, ask)
            response = await self._handler(request)
            await response.prepare(request)
            await response.write_eof()
        except ConnectionError:
            return
        except Exception:
            log.exception("answering a request of a server failed")


def _request(client: FarClient, ask: Ask) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    parser = HttpRequestParser(
        BaseProtocol(loop),
        loop,
        _READ_LIMIT,
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_FIELD_BYTES,
        max_headers=MAX_FIELDS,
        auto_decompress=False,
    )
    messages, _, _ = parser.feed_data(ask.head)
    task = asyncio.current_task()
    assert task is not None
    return request_of(messages[0][0], EMPTY_PAYLOAD, cast(Any, client), FarWriter(client), task)


def _user(sock: socket.socket) -> int:
    """Whose process the other side is (unix(7), SO_PEERCRED)."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(credentials)[1]
    return user
