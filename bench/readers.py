"""The program that pulls bodies and throws them away; `load.py` runs it in a process of its own.

It reads with MSG_TRUNC: the kernel drops the bytes without copying them, so that the clients cost as little as
clients can, and what is measured is the server. Over TLS they decrypt. All requests leave in the same moment.
"""

import json
import math
import re
import selectors
import socket
import ssl
import sys
import time
from dataclasses import asdict, dataclass

from bench.certificate import trusting_anybody

PIECE = 4 << 20
HEAD = 4096
# docker-registry answers a tag in an older format to those who do not name the newer.
ACCEPT = "Accept: application/vnd.docker.distribution.manifest.v2+json, */*"
ALL_ARE_READING = "all are reading"
SILENCE = 60.0  # no byte for anyone for so long: the server has stopped
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to read: each client asks once, or again and again for some seconds, or until standard input ends."""

    port: int
    path: str
    clients: int
    seconds: float | None = None
    until_told: bool = False
    tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read: bytes of bodies, the time it took, each client's time to the first byte of its first body."""

    seconds: float
    size: int
    responses: int
    first_bytes: list[float]

    @property
    def megabytes_a_second(self) -> float:
        """The throughput of all clients together."""
        return self.size / self.seconds / 1e6

    @property
    def gib(self) -> float:
        """The size of all bodies together."""
        return self.size / (1 << 30)


class ReadError(Exception):
    """A response was not what a pull needs."""


class Client:
    """One connection, one request at a time."""

    def __init__(self, order: Order) -> None:
        self._request = f"GET {order.path} HTTP/1.1\r\nHost: localhost\r\n{ACCEPT}\r\n\r\n".encode()
        self.socket = socket.create_connection(("127.0.0.1", order.port))
        self.socket.setblocking(False)
        self.first_byte: float | None = None
        self._asked = 0.0
        self._head = b""
        self._left: int | None = None

    @property
    def is_done(self) -> bool:
        """Whether the response has come to its end."""
        return self._left == 0

    def ask(self) -> None:
        """Send the request."""
        self._head, self._left = b"", None
        self._asked = time.perf_counter()
        self.socket.sendall(self._request)

    def read(self, scratch: bytearray) -> int:
        """Read what is there and return how many bytes of the body that was."""
        if self._left is None:
            size = self._read_head()
        else:
            size = self._discard(scratch, self._left)
            self._left -= size
        if size and self.first_byte is None:
            self.first_byte = time.perf_counter() - self._asked
        return size

    def _discard(self, scratch: bytearray, left: int) -> int:
        """Take some of what is left of the body, and return how much that was."""
        return self._some(self.socket.recv_into(scratch, min(left, PIECE), socket.MSG_TRUNC))

    def _some(self, size: int) -> int:
        if not size:
            raise ReadError(f"the body ended {self._left} bytes early")
        return size

    def _read_head(self) -> int:
        try:
            data = self.socket.recv(HEAD)
        except ssl.SSLWantReadError:  # What has come is TLS's own.
            return 0
        if not data:
            raise ReadError("the connection was closed instead of a response")
        self._head += data
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return 0
        status, length = head.split(b" ", 2)[1].decode(), LENGTH.search(head)
        if status != "200" or length is None:
            raise ReadError(f"the response was {status}" + ("" if length else " without Content-Length"))
        self._left = int(length[1]) - len(body)
        return len(body)


class SecureClient(Client):
    """One that speaks TLS."""

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        self.socket.setblocking(True)
        self.socket = trusting_anybody().wrap_socket(self.socket, server_hostname="localhost")
        self.socket.setblocking(False)

    def _discard(self, scratch: bytearray, left: int) -> int:
        """All that is there: what OpenSSL has read already, no selector tells of."""
        taken = 0
        try:
            while taken < left:
                taken += self._some(self.socket.recv_into(scratch, min(left - taken, PIECE)))
        except ssl.SSLWantReadError:
            pass
        return taken


class Crowd:
    """The clients of one order, read in turn as their bytes come."""

    def __init__(self, order: Order, selector: selectors.BaseSelector) -> None:
        self._order = order
        self._selector = selector
        self._scratch = bytearray(PIECE)
        kind = SecureClient if order.tls else Client
        self._clients = [kind(order) for _ in range(order.clients)]
        self._silent = self._open = order.clients
        self._size = self._responses = 0

    def pull(self) -> Reading:
        """Let all ask at once and read until the order is fulfilled."""
        for client in self._clients:
            self._selector.register(client.socket, selectors.EVENT_READ, client)
        if self._order.until_told:
            self._selector.register(sys.stdin, selectors.EVENT_READ)
        start = time.perf_counter()
        for client in self._clients:
            client.ask()
        self._read_until(start + self._order.seconds if self._order.seconds is not None else math.inf)
        return Reading(
            seconds=time.perf_counter() - start,
            size=self._size,
            responses=self._responses,
            first_bytes=[client.first_byte for client in self._clients if client.first_byte is not None],
        )

    def _read_until(self, deadline: float) -> None:
        while self._open and (left := deadline - time.perf_counter()) > 0:
            ready = self._selector.select(min(left, SILENCE))
            if not ready and left > SILENCE:
                raise ReadError(f"no byte came for {SILENCE:.0f} s")
            for key, _ in ready:
                if key.data is None:  # standard input: we are told to stop
                    return
                self._read(key.data)

    def _read(self, client: Client) -> None:
        was_silent = client.first_byte is None
        self._size += client.read(self._scratch)
        if was_silent and client.first_byte is not None:
            self._silent -= 1
            if not self._silent and self._order.until_told:
                print(ALL_ARE_READING, flush=True)
        if client.is_done:
            self._finish(client)

    def _finish(self, client: Client) -> None:
        self._responses += 1
        if self._order.until_told or self._order.seconds is not None:
            client.ask()
        else:
            self._selector.unregister(client.socket)
            self._open -= 1


def read(order: Order) -> Reading:
    """Carry out an order."""
    with selectors.DefaultSelector() as selector:
        return Crowd(order, selector).pull()


def main() -> int:
    """Carry out the order in the first argument; print the reading, or fail with one line."""
    try:
        print(json.dumps(asdict(read(Order(**json.loads(sys.argv[1]))))), flush=True)
    except (ReadError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
