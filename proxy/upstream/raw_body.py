"""The rest of a body, received from the connection's own socket in a thread (see `store.fills.transfer` for why)."""

from __future__ import annotations

import socket
import time

from proxy.metrics import Metrics
from proxy.oci.errors import Unavailable
from proxy.upstream.failures import border
from proxy.upstream.pace import Pace


class RawBody:
    """Used by one thread at a time, all but `interrupt`. Owns `sock`, a duplicate of the connection's socket."""

    def __init__(
        self, upstream: str, sock: socket.socket, arrived: bytes, left: int, idle_timeout: float, metrics: Metrics
    ) -> None:
        self.left = left
        """Bytes that are still to come, with those that `arrived` before."""
        self._upstream = upstream
        self._sock = sock
        self._arrived = memoryview(arrived)
        self._idle_timeout = idle_timeout
        self._pace = Pace(upstream, idle_timeout)
        self._metrics = metrics

    def receive(self, into: memoryview, timeout: float | None) -> int:
        """How many bytes came, 0 after `timeout` seconds without any. Raises Unavailable: when the body breaks off or
        next to nothing arrives and, without `timeout`, when nothing does within the idle time-out."""
        into = into[: self.left]
        started = time.monotonic()
        received = self._take(into) if self._arrived else self._receive(into, timeout)
        self.left -= received
        self._metrics.fetched(self._upstream, "blob", received)
        if self.left:
            self._pace.note(time.monotonic() - started, received)
        return received

    def interrupt(self) -> None:
        """End a `receive` that is waiting in another thread."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # The other side was faster.

    def close(self) -> None:
        """Close the socket; no `receive` may be running."""
        self._sock.close()

    def _take(self, into: memoryview) -> int:
        piece = self._arrived[: len(into)]
        into[: len(piece)] = piece
        self._arrived = self._arrived[len(piece) :]
        return len(piece)

    def _receive(self, into: memoryview, timeout: float | None) -> int:
        self._sock.settimeout(self._idle_timeout if timeout is None else timeout)
        with border(self._upstream):
            try:
                received = self._sock.recv_into(into)
            except TimeoutError:
                if timeout is None:
                    raise Unavailable(f"{self._upstream}: nothing arrived within the idle time-out") from None
                return 0
        if not received:
            raise Unavailable(f"{self._upstream}: the blob ended at another place than was announced")
        return received
