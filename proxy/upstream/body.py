"""The body of a blob as it arrives, and the headers that say which part of the blob it is (RFC 9110 section 14)."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from proxy.metrics import Metrics
from proxy.oci.errors import Unavailable
from proxy.upstream.failures import border
from proxy.upstream.pace import Pace
from proxy.upstream.raw_body import RawBody
from proxy.upstream.transport import Answer, content_length

_PART: Final = re.compile(r"\Abytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\Z", re.ASCII | re.IGNORECASE)
"""With numbers below `SIZE_LIMIT`."""
_UNSATISFIED: Final = re.compile(r"\Abytes \*/(\d{1,18})\Z", re.ASCII | re.IGNORECASE)


class Parts(Protocol):
    """More of the same blob, over further connections (`parts`)."""

    @property
    def most(self) -> int: ...

    @property
    def refused(self) -> bool: ...

    def welcome(self) -> bool: ...

    def open(self, start: int, stop: int, *, further: bool) -> AbstractAsyncContextManager[BlobBody]: ...


class BlobBody:
    """The bytes of a blob from `start` on. `size` is of the whole blob, None where upstream does not say."""

    __slots__ = (
        "_answer",
        "_find_parts",
        "_idle_timeout",
        "_left",
        "_metrics",
        "_offset",
        "_pace",
        "_raw",
        "_upstream",
        "size",
        "start",
    )

    def __init__(
        self,
        upstream: str,
        answer: Answer,
        offset: int,
        idle_timeout: float,
        metrics: Metrics,
        *,
        stop: int | None = None,
        find_parts: Callable[[int], Parts | None] = lambda size: None,
    ) -> None:
        """Raises Unavailable for an answer to `Range: bytes=<offset>-` that cannot be what was asked for.

        With `stop`, to `Range: bytes=<offset>-<stop - 1>`: then only such a part will do.
        """
        self._upstream = upstream
        self._answer = answer
        self._offset = offset
        self._find_parts = find_parts
        self._idle_timeout = idle_timeout
        self._metrics = metrics
        self._pace = Pace(upstream, idle_timeout)
        self._raw: RawBody | None = None
        if answer.status == 206:
            part = _PART.match(answer.headers.get("Content-Range", ""))
            if part is None or int(part[1]) != offset or stop not in (None, int(part[2]) + 1):
                raise Unavailable(f"{upstream}: another part of the blob than was asked for")
            self.start = offset
            self.size = None if part[3] == "*" else int(part[3])
            self._left = (int(part[2]) + 1 if self.size is None or stop is not None else self.size) - offset
        else:
            self.start = 0
            self.size = content_length(answer.headers)
            self._left = self.size

    _left: int | None
    size: int | None
    start: int

    def __repr__(self) -> str:
        return f"<BlobBody of {self._upstream} from {self.start}, size {self.size}>"

    async def read(self) -> bytes:
        """What has arrived since; b"" at the end, if that is where the end should be. Raises Unavailable: also when
        next to nothing arrives."""
        started = time.monotonic()
        with border(self._upstream):
            data = await self._answer.response.content.readany()
        waited = time.monotonic() - started
        if self._left is not None:
            self._left -= len(data)
        if (self._left or 0) < 0 or (not data and self._left):
            raise Unavailable(f"{self._upstream}: the blob ended at another place than was announced")
        self._metrics.fetched(self._upstream, "blob", len(data))
        if data and self._left != 0:
            self._pace.note(waited, len(data))
        return data

    def detach(self) -> RawBody | None:
        """The rest of the body for a thread to receive: without TLS or chunks, and still arriving. Else None.

        After that, `read` is not called any more.
        """
        connection, content = self._answer.response.connection, self._answer.response.content
        if connection is None or connection.protocol is None or content.exception() is not None or not self._left:
            return None
        if "Transfer-Encoding" in self._answer.headers:  # The size of a 206 is known even so, from Content-Range.
            return None
        transport = connection.transport
        if transport is None or transport.get_extra_info("sslcontext") is not None:
            return None
        arrived = content.read_nowait()
        connection.protocol.pause_reading()  # Not before read_nowait, which resumes. Now the socket is the thread's.
        sock = transport.get_extra_info("socket")
        own = socket.socket(sock.family, sock.type, sock.proto, os.dup(sock.fileno()))
        self._raw = RawBody(self._upstream, own, arrived, self._left, self._idle_timeout, self._metrics)
        return self._raw

    def parts(self) -> Parts | None:
        """More of the blob, over further connections; None where that cannot be."""
        return None if self.size is None or self.start != self._offset else self._find_parts(self.size)

    def close(self) -> None:
        """Stop here."""
        if self._raw is not None:
            self._raw.close()
        self._answer.close()


def total_size(headers: Mapping[str, str]) -> int | None:
    """The size of the whole that a Content-Range tells of, in bytes."""
    value = headers.get("Content-Range", "")
    found = _PART.match(value) or _UNSATISFIED.match(value)
    total = found[found.re.groups] if found else "*"
    return None if total == "*" else int(total)
