"""The connections of clients, in all and of each address: beyond the limits one is told so and ended, cheaply.

A refused client gets one error in the specification's JSON before it has asked for anything. 429 is for those who have
too many connections of their own, 503 for everybody when there are too many in all; clients try again, or elsewhere,
on both.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import sys
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, Protocol

from aiohttp import web

from proxy.config import ServerOptions
from proxy.oci.errors import RegistryError, TooManyRequests, Unavailable
from proxy.server import responses
from proxy.server.census import Census, OwnCensus
from proxy.server.certificate import Certificate
from proxy.server.connection import Connection, Host, Patience, request_of
from proxy.server.floor import FLOOR, Floor
from proxy.server.malformed import Malformed
from proxy.server.tls import Tls

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS: Final = 75.0
"""Longer than the 30 s for which Go's clients keep idle connections, so that we never close one they reuse."""
RETRY_SECONDS: Final = 5.0

_FILES_APART: Final = 256
"""Open files that are for other than clients: the database, fills, connections to upstreams."""
_FILES_EACH: Final = 3
"""Open files of a client at most: its connection, that once more while a blob is sent, and the blob."""
_LINGERING: Final = 256
"""Refused connections that are told so at the same time; more are ended without a word."""
_LINGERING_SECONDS: Final = 1.0


class Counter(Protocol):
    """Whoever counts what is refused."""

    def connection_refused(self, reason: str) -> None:
        """A connection of a client was refused, or ended before its time."""


class Connections(Host):
    """Makes a Connection of each that is accepted, and counts them. One for each event loop."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        repeat: Callable[[bytes, str], bytes | None],
        metrics: Counter,
        options: ServerOptions,
        floor: Floor = FLOOR,
        certificate: Certificate | None = None,
        census: Census | None = None,
    ) -> None:
        """`certificate` says whether the next connection is one of TLS, and with what; `census` what there are, of
        all who serve these clients."""
        super().__init__(handler, request_factory=request_of, handler_cancellation=True)
        self._repeat = repeat
        self._metrics = metrics
        self._floor = floor
        self._certificate = certificate or Certificate()
        self._census = census or OwnCensus()
        self._open = 0
        self._lingering = 0
        self._told = False
        self.apply(options)

    def apply(self, options: ServerOptions) -> None:
        """Use these limits from now on; connections that there are stay."""
        self.patience = Patience(header=options.header_timeout, floor=self._floor)
        self._limit = options.max_connections or sys.maxsize
        self._own_limit = _affordable()
        self._client_limit = options.max_connections_per_client or sys.maxsize

    def __len__(self) -> int:
        """How many are open, with all who serve these clients."""
        return self._census.total

    def __bool__(self) -> bool:
        return True

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]  # TLS is one around aiohttp's own.
        """A connection for the next that is accepted."""
        connection = Connection(self, self._loop, KEEP_ALIVE_SECONDS)
        context = self._certificate.context
        return connection if context is None else Tls(connection, context, _NOT_TLS, self.refused)

    def admit(self, connection: Connection, transport: asyncio.Transport) -> bool:
        """Whether this connection is served; if not, it is told so and ended."""
        peer = transport.get_extra_info("peername")
        client = str(peer[0]) if isinstance(peer, tuple) else "-"
        if self._open >= self._own_limit or self._census.total >= self._limit:
            self._tell_the_log()
            self._turn_away(transport, "max_connections", _TOO_MANY)
            return False
        if self._census.of(client) >= self._client_limit:
            self._turn_away(transport, "max_connections_per_client", _TOO_MANY_OF_CLIENT)
            return False
        self._open += 1
        self._census.came(client)
        connection.client = client
        return True

    def left(self, connection: Connection) -> None:
        """An admitted connection has ended."""
        self._open -= 1
        self._census.went(connection.client)

    def answer(self, request: bytes, client: str) -> bytes | None:
        """The whole answer to a whole request, if it is known without a look at it."""
        return self._repeat(request, client)

    def refused(self, reason: str) -> None:
        """A connection is ended by us, and why."""
        self._metrics.connection_refused(reason)

    def _tell_the_log(self) -> None:
        """Once: what limits the connections may be another setting than one thinks."""
        if not self._told:
            self._told = True
            reason = "[server] max_connections, and the limit of open files (ulimit -n) of this process"
            log.warning(
                "clients are refused: there are %d connections, as many as there may be (%s)", len(self), reason
            )

    def _turn_away(self, transport: asyncio.Transport, reason: str, answer: bytes) -> None:
        self.refused(reason)
        if self._lingering >= _LINGERING:
            transport.set_protocol(asyncio.Protocol())
            transport.abort()
            return
        self._lingering += 1
        refusal = _Refusal(answer, self._turned_away)
        transport.set_protocol(refusal)
        refusal.connection_made(transport)

    def _turned_away(self) -> None:
        self._lingering -= 1


class _Refusal(asyncio.Protocol):
    """Says one thing, and waits for a moment until it was heard: an end at once could overtake it."""

    def __init__(self, answer: bytes, done: Callable[[], None]) -> None:
        self._answer = answer
        self._done = done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._answer)
        transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(_LINGERING_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._done()


def _affordable() -> int:
    """As many connections as the limit of open files of this process allows."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if files == resource.RLIM_INFINITY else max(1, (files - _FILES_APART) // _FILES_EACH)


def _written(error: RegistryError) -> bytes:
    """A whole response, for a connection that no request was read from."""
    response = responses.error_response(error, responses.common_headers())
    body = error.body()
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items() if name != "Content-Length"]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


_NOT_TLS: Final = _written(Malformed("this port speaks https, and was asked in http"))
_TOO_MANY: Final = _written(Unavailable("this cache has as many connections as it may", retry_after=RETRY_SECONDS))
_TOO_MANY_OF_CLIENT: Final = _written(
    TooManyRequests("this client has as many connections as one may", retry_after=RETRY_SECONDS)
)
