"""What a server does with a request: it asks the host, and sends what the host says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from proxy.oci.errors import RegistryError
from proxy.server import responses
from proxy.server.connection import Connection
from proxy.server.floor import TooSlow, cut
from proxy.server.memo import Memo
from proxy.server.pump import Pump
from proxy.workers.asking import Asking
from proxy.workers.kept import Kept
from proxy.workers.line import Line
from proxy.workers.messages import Answer, Ask

_OURS: Final = frozenset({b"connection", b"content-length", b"expect", b"transfer-encoding", b"upgrade"})
"""Fields that are for whoever reads the body or the connection, which is us."""
_CLOSE: Final = b"\r\nConnection: close\r\n"


class Relay:
    """Answers the requests of one server's clients."""

    def __init__(
        self,
        line: Line,
        pump: Pump,
        refused: Callable[[str], None],
        edition: Callable[[], int],
        memo: Memo | None,
    ) -> None:
        """`refused` is told why we end a connection. The memo, if answers are to be kept, is one of this edition."""
        self._line = line
        self._pump = pump
        self._edition = edition
        self.memo = memo
        self._refused = refused
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False

    async def drain(self) -> None:
        """Wait until no request is being answered; from now on connections end with their answers."""
        self._draining = True
        await self._idle.wait()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        self._active += 1
        self._idle.clear()
        try:
            return await self._relay(request)
        finally:
            self._active -= 1
            if not self._active:
                self._idle.set()

    async def _relay(self, request: web.BaseRequest) -> web.StreamResponse:
        asking = Asking(self._line, Ask(_head(request), request.remote or "-", request.scheme == "https"))
        sent = 0

        def moved(count: int) -> None:
            nonlocal sent
            sent += count

        response: Written | None = None
        left = True
        try:
            answer = await asking.answer()
            response = self._response(answer)
            if answer.more:
                await self._send(request, response, asking, answer.more, moved)
            elif answer.kept is not None:
                self._keep(request, answer)
            left = False
            return response
        except RegistryError as error:
            return _broken_off(request) if response else self._failed(error)
        except ConnectionError as error:
            if isinstance(error, TooSlow) and request.transport is not None:
                self._refused("slow_reader")
                cut(request.transport)
            return _broken_off(request)
        finally:
            asking.close(sent, left=left)

    async def _send(
        self, request: web.BaseRequest, response: Written, asking: Asking, size: int, moved: Callable[[int], None]
    ) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has left")
        writer = await response.prepare(request)
        await writer.drain()  # Until all is sent (see Connection): nothing may overtake the headers.
        start = await asking.first()
        await self._pump.send(transport, asking, start, start + size, moved)

    def repeat(self, request: bytes, client: str) -> bytes | None:
        """The whole answer to these bytes of a whole request, if the host has just answered them."""
        return self.memo.answer(request, client) if self.memo is not None and not self._draining else None

    def _keep(self, request: web.BaseRequest, answer: Answer) -> None:
        kept, alone = Kept.read(answer.kept), _connection(request).alone
        if self.memo is not None and alone is not None and kept.edition == self._edition():
            self.memo.put(alone, lambda: answer.head, answer.body, kept.digest, kept.exchange, kept.until)

    def _response(self, answer: Answer) -> Written:
        head = answer.head
        if self._draining and _CLOSE not in head:
            head = head[:-2] + _CLOSE[2:] + b"\r\n"
        return Written(head, answer.body)

    def _failed(self, error: RegistryError) -> web.Response:
        headers = responses.common_headers()
        if self._draining:
            headers["Connection"] = "close"
        return responses.error_response(error, headers)


class Written(web.StreamResponse):
    """An answer that the host has written already."""

    def __init__(self, head: bytes, body: bytes) -> None:
        super().__init__()
        self._written = head + body
        self._begun: AbstractStreamWriter | None = None
        if _CLOSE in head:
            self.force_close()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write it, once."""
        if self._begun is None:
            self._begun = request.writer
            self._keep_alive = request.keep_alive if self._keep_alive is None else self._keep_alive
            await self._begun.write(self._written)
        return self._begun

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is missing."""


def _head(request: web.BaseRequest) -> bytes:
    """The head as it came, or in the same words."""
    alone = _connection(request).alone
    if alone is not None:
        return alone
    version = request.version
    lines = [f"{request.method} {request.raw_path} HTTP/{version.major}.{version.minor}".encode()]
    lines += [name + b": " + value for name, value in request.raw_headers if name.lower() not in _OURS]
    lines.append(b"Connection: keep-alive" if request.keep_alive else b"Connection: close")
    if version == HttpVersion11 and "Host" not in request.headers:
        lines.append(b"Host:")  # It came as another version (see `request_of`), which needs none.
    return b"\r\n".join([*lines, b"", b""])


def _connection(request: web.BaseRequest) -> Connection:
    assert isinstance(request.protocol, Connection)
    return request.protocol


def _broken_off(request: web.BaseRequest) -> web.StreamResponse:
    """See `server.routes`: end the connection without another byte."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
