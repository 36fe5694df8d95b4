"""One connection of a client: HTTP/1.1 by aiohttp, and the rules for those who are slow, or do not speak it.

- A request's header comes within a bound of the connection's start or of its own first byte, and is of bounded size.
- A response goes on only while its bytes are taken (`Floor`); one at a time is written, however many were asked for.
- What is no HTTP gets an error in the specification's JSON. Nothing of what the client sent is in it or in the log.
- A request of the same bytes as one that was answered just now is not parsed again (`memo`).
- A client that ends its side of the connection after its requests is answered all the same. Whether it has left
  altogether cannot be told from that, so it is not waited for long.

This leans on the inner workings of aiohttp's RequestHandler, of one minor version (pyproject.toml): requests wait in
`_messages`, those that could not be parsed as `_ErrInfo`, and are answered one after the other.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from proxy.oci.errors import RegistryError
from proxy.server import responses
from proxy.server.floor import FLOOR, Floor, cut, silent_seconds, unacknowledged
from proxy.server.malformed import MAX_FIELD_BYTES, MAX_LINE_BYTES, HeaderLate, HeaderTooLarge, error_of

log = logging.getLogger(__name__)

MAX_FIELDS: Final = 100
MAX_HEADER_BYTES: Final = 32 * 1024
"""Of all header fields of a request; what the last read brought may come on top."""
READ_BYTES: Final = 16 * 1024
"""What is read from a connection at once. Requests are small, and many connections have one such buffer each."""
LINGERING_SECONDS: Final = 2.0
"""How long a body that nobody asked for is read and thrown away, so that its sender sees the answer."""

_END: Final = b"\r\n\r\n"
_HALF_CLOSED_SECONDS: Final = 1.0
_QUEUE: Final = 4
"""Requests that wait behind the one being answered, before reading stops; what one read brought may come on top."""


class _Leaving(Exception):
    """The place in the queue where a client that ended its side has been answered."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client is waited for, in seconds."""

    header: float
    floor: Floor = FLOOR
    half_closed: float = _HALF_CLOSED_SECONDS


class Host(web.Server, ABC):
    """Whoever makes the connections, and counts them."""

    patience: Patience

    @abstractmethod
    def admit(self, connection: Connection, transport: asyncio.Transport) -> bool:
        """Whether this connection is served; if not, it is somebody else's from now on."""

    @abstractmethod
    def left(self, connection: Connection) -> None:
        """An admitted connection has ended."""

    @abstractmethod
    def answer(self, request: bytes, client: str) -> bytes | None:
        """The whole answer to a whole request, if it is known without a look at it."""

    @abstractmethod
    def refused(self, reason: str) -> None:
        """A connection is ended by us, and why."""


def request_of(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    """What the handler is asked. The answer is in HTTP/1.1, whatever else it calls itself (RFC 9110 section 2.5)."""
    if message.version is not HttpVersion11 and message.version is not HttpVersion10:
        message = message._replace(version=HttpVersion11, should_close=True)
    return web.BaseRequest(message, payload, protocol, writer, task, asyncio.get_running_loop())


class Connection(RequestHandler):
    """One connection of a client."""

    __slots__ = (
        "_body",
        "_deadline",
        "_deaf",
        "_flow",
        "_half_closed",
        "_header_bytes",
        "_host",
        "_is_between",
        "_wire",
        "alone",
        "client",
    )

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop, keep_alive_seconds: float) -> None:
        super().__init__(
            host,
            loop=loop,
            keepalive_timeout=keep_alive_seconds,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_FIELDS,
            read_bufsize=READ_BYTES,
            lingering_time=LINGERING_SECONDS,
            auto_decompress=False,
            access_log=cast(Any, None),
        )
        self._max_msg_queue_size = _QUEUE
        self._msg_queue_resume_size = 0
        self._host = host
        self._wire: asyncio.Transport | None = None
        self._body: StreamReader = EMPTY_PAYLOAD
        self._header_bytes = 0
        """Of the header that is arriving."""
        self._deadline: asyncio.TimerHandle | None = None
        self._flow: asyncio.TimerHandle | None = None
        self._half_closed: asyncio.TimerHandle | None = None
        self._deaf = False
        """Whether what the client says does not matter any more."""
        self._is_between = True
        """Whether the parser has had whole requests only."""
        self.alone: bytes | None = None
        """All bytes of the request that is being answered, if it came in one piece and nothing came after it."""
        self.client = "-"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many."""
        wire = cast(asyncio.Transport, transport)
        if not self._host.admit(self, wire):
            return
        cast(Any, wire).max_size = READ_BYTES
        wire.set_write_buffer_limits(high=0)  # A drain waits for all of a response: no more than one is in memory.
        self._wire = wire
        super().connection_made(transport)
        self._await_header()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End what was waiting."""
        if self._wire is not None:
            self._wire = None
            self._host.left(self)
        for timer in (self._deadline, self._flow, self._half_closed):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    # What comes in

    def data_received(self, data: bytes) -> None:
        """Parse, and see that the header which is arriving is neither large nor late."""
        if self._deaf:
            return
        is_next = self._is_between and self._is_idle()
        if is_next and self._repeat(data):
            return
        before = self._request_count
        super().data_received(data)
        self._is_between = data.endswith(_END)
        is_alone = is_next and self._request_count == before + 1 and data.find(_END) == len(data) - len(_END)
        self.alone = data if is_alone and self._messages[-1][1] is EMPTY_PAYLOAD else None
        if self._request_count != before:
            self._parsed(data)
        elif self._body.is_eof() and not (self._close or self._upgraded) and data.strip(b"\r\n"):
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._refuse(HeaderTooLarge("the header of the request is too large"), "malformed")
            elif self._deadline is None:
                self._await_header()

    def _repeat(self, request: bytes) -> bool:
        """Send the answer to these bytes, if they are known."""
        if self._keepalive_handle is None or self._close or self._force_close or self._upgraded or self._paused:
            return False
        answer = self._host.answer(request, self.client)
        if answer is None or self._wire is None:
            return False
        self._wire.write(answer)
        if self._deadline is not None:  # It was the first request of this connection.
            self._deadline.cancel()
            self._deadline = None
        self._keepalive = True
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        return True

    def _parsed(self, data: bytes) -> None:
        """A header has come to its end in `data`."""
        message, self._body = self._messages[-1]
        self._deaf = isinstance(message, _ErrInfo)
        self._header_bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        is_all = data.endswith(_END) or _END.endswith(data)  # A header may end with a byte that comes alone.
        if self._body is EMPTY_PAYLOAD and not is_all and not self._deaf:
            self._header_bytes = len(data)  # At most: the next one has begun.
            self._await_header()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # aiohttp never keeps such a connection.
        """The client says no more. True while it has something to be answered."""
        if self._half_closed is not None:
            return True
        if self._is_idle():
            return None  # What follows would come to the same, only later: this is how most connections end.
        self._deaf = True
        self._put(_Leaving())
        self._watch_half_closed()
        return True

    def _watch_half_closed(self) -> None:
        self._half_closed = self._loop.call_later(self._host.patience.half_closed, self._check_half_closed)

    def _check_half_closed(self) -> None:
        """End the connection if there was nothing to send for a while: its client may have left altogether."""
        if self._wire is None:
            return
        if silent_seconds(self._wire) >= self._host.patience.half_closed:
            self._wire.abort()
        else:
            self._watch_half_closed()

    def _is_idle(self) -> bool:
        """Whether no request of this client is to be answered."""
        return not self._messages and self._waiter is not None and not self._waiter.done()

    def _await_header(self) -> None:
        self._deadline = self._loop.call_later(self._host.patience.header, self._header_is_late)

    def _header_is_late(self) -> None:
        self._deadline = None
        if self._deaf:
            return
        if self._header_bytes:
            self._refuse(HeaderLate("the header of the request did not come in time"), "header_timeout")
        else:
            self._host.refused("header_timeout")
            self.force_close()

    def _refuse(self, error: RegistryError, reason: str) -> None:
        """Answer with this error when all before it is answered, and end the connection."""
        self._deaf = True
        self._host.refused(reason)
        self._put(error)

    def _put(self, error: Exception) -> None:
        self._messages.append((_ErrInfo(status=0, exc=error, message=""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What goes out

    def pause_writing(self) -> None:
        """The client takes no more at present: from now on it is watched."""
        super().pause_writing()
        self._watch_flow()

    def resume_writing(self) -> None:
        """All is sent."""
        if self._flow is not None:
            self._flow.cancel()
            self._flow = None
        super().resume_writing()

    def _watch_flow(self) -> None:
        floor = self._host.patience.floor
        self._flow = self._loop.call_later(floor.seconds, self._check_flow, floor, self._unsent())

    def _check_flow(self, floor: Floor, before: int) -> None:
        if self._wire is not None and before - self._unsent() < floor.bytes:
            self._host.refused("slow_reader")
            cut(self._wire)
        else:
            self._watch_flow()

    def _unsent(self) -> int:
        if self._wire is None:
            return 0
        fd = self._wire.get_extra_info("socket").fileno()
        return self._wire.get_write_buffer_size() + unacknowledged(fd)

    # Errors

    def _make_error_handler(self, err_info: _ErrInfo) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        async def handler(request: web.BaseRequest) -> web.StreamResponse:
            if isinstance(err_info.exc, _Leaving):
                self.force_close()
                return web.Response()  # Which aiohttp finds that it cannot send any more, in silence.
            return self._error_response(self._error_of(err_info.exc))

        return handler

    def _error_of(self, error: BaseException) -> RegistryError:
        if isinstance(error, RegistryError):
            return error
        self._host.refused("malformed")
        log.info("a request that is no HTTP was refused: %s", type(error).__name__)
        return error_of(error)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What failed beyond our own handler, which answers its errors itself."""
        self.log_exception("answering a request failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun")
        return self._error_response(RegistryError("an internal error; see the cache's log"))

    def _error_response(self, error: RegistryError) -> web.Response:
        headers = responses.common_headers()
        headers["Connection"] = "close"
        response = responses.error_response(error, headers)
        response.force_close()
        return response
