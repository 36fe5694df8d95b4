"""Answers kept as bytes, by the bytes of the requests that they answered: the same bytes are the same request.

A client that asks within the second what was asked before gets the answer unparsed and unprepared (PERFORMANCE 1). The
rules that keep this right are few:

- Only what is answered from the cache alone is kept, whole and small: a plain hit of a GET or HEAD without a body.
- An answer is kept until the second of its Date ends, or the freshness or the Age of its tag. So these are right, and
  so is whatever else depends on time: visibility, the governor. None is kept when anything in the index has changed.
- It is the connection that says whether bytes are a whole request, and alone (`Connection`), and whether the last
  answer has left. What is odd in any way is parsed.
- Such an answer is counted, logged and written into the books as any other, and what it gave was used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Final, Protocol

from aiohttp import web

from proxy.clock import Clock
from proxy.oci.names import Digest
from proxy.pull.outcome import Outcome
from proxy.server.access_log import Exchange
from proxy.server.repeats import Repeat, Repeats

MAX_REQUEST_BYTES: Final = 4096
_MAX_BYTES: Final = 16 * 1024 * 1024
"""Of all that is kept; after that nothing more is kept in this second."""
_HEAD_BYTES: Final = 1024
"""What the header of an answer and all that belongs to it is taken to be, before it is made."""


class _Kept:
    """An answer, and to whom it was given."""

    __slots__ = ("_body", "_bytes", "_head", "digest", "exchange", "repeats", "until")

    def __init__(
        self, head: Callable[[], bytes], body: bytes, until: float, digest: Digest, exchange: Exchange
    ) -> None:
        self._head = head
        self._body = body
        self._bytes = b""
        self.until = until
        self.digest = digest
        self.exchange = exchange
        self.repeats: dict[str, Repeat] = {}

    def bytes(self) -> bytes:
        """Made when they are needed: most requests are not repeated within the second."""
        if not self._bytes:
            self._bytes = self._head() + self._body
        return self._bytes


class Log(Protocol):
    """Takes note of each answer."""

    def line(self, exchange: Exchange, seconds: float) -> str:
        """What is written of an exchange that took so long, if it is answered now."""

    def append(self, line: str, /) -> None:
        """It is."""


class Memo:
    """The answers of this second, by one configuration. Used on the event loop."""

    def __init__(self, version: Callable[[], int], repeats: Repeats, access_log: Log | None, clock: Clock) -> None:
        """`version` is another number after each change that answers depend on."""
        self._version = version
        self._repeats = repeats
        self._access_log = access_log
        self._clock = clock
        self._kept: dict[bytes, _Kept] = {}
        self._bytes = 0
        self._begin, self._end = 0.0, 0.0
        self._of_version = -1

    def __len__(self) -> int:
        return len(self._kept)

    def answer(self, request: bytes, client: str) -> bytes | None:
        """The whole answer to these bytes of this client, which it is sent now; None if they are to be parsed."""
        kept = self._kept.get(request)
        if kept is None or not self._begin <= self._clock.time() < kept.until or self._of_version != self._version():
            return None
        repeat = kept.repeats.get(client) or self._repeat(kept, client)
        self._repeats.given(repeat)
        if self._access_log is not None:
            self._access_log.append(repeat.line)
        return kept.bytes()

    def until(self, outcome: Outcome) -> float:
        """Until when an answer of now can be given again, by the wall clock."""
        end = math.floor(self._clock.time()) + 1.0
        return end if outcome.until is None else min(end, outcome.until)

    def keep(self, request: bytes, response: web.StreamResponse, digest: Digest, exchange: Exchange) -> None:
        """Keep the answer to these bytes: a response that was prepared, and what is counted of it."""
        body = response.body if isinstance(response, web.Response) and exchange.method != "HEAD" else b""
        if isinstance(body, bytes):
            assert exchange.outcome is not None
            until = self.until(exchange.outcome)
            self.put(request, partial(_head, response), body, digest, exchange, until)

    def put(
        self,
        request: bytes,
        head: Callable[[], bytes],
        body: bytes,
        digest: Digest,
        exchange: Exchange,
        until: float,
    ) -> None:
        """Likewise, of an answer in two parts; `head` is called when it is given for the first time."""
        if not self._is_current():
            self._renew()
        self._bytes += len(request) + len(body) + _HEAD_BYTES
        if self._bytes <= _MAX_BYTES:
            self._kept[request] = _Kept(head, body, until, digest, exchange)

    def _repeat(self, kept: _Kept, client: str) -> Repeat:
        exchange = kept.exchange.again(client)
        line = self._access_log.line(exchange, 0.0) if self._access_log is not None else ""
        repeat = kept.repeats[client] = Repeat(exchange, kept.digest, line)
        return repeat

    def _is_current(self) -> bool:
        return self._of_version == self._version() and self._begin <= self._clock.time() < self._end

    def _renew(self) -> None:
        self._kept.clear()
        self._bytes = 0
        self._begin = float(math.floor(self._clock.time()))
        self._end = self._begin + 1.0
        self._of_version = self._version()


def _head(response: web.StreamResponse) -> bytes:
    """As aiohttp has sent it."""
    lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()
