"""How slow a client may be: what it must take of a response in a while, by the acknowledgements of its own kernel.

Counting what leaves us would not do. A socket takes megabytes at once and is then full for minutes on a slow but
healthy line, so what still waits in it does not count as taken.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from dataclasses import dataclass
from typing import Final

_LAST_SENT: Final = struct.Struct("44xI")
"""Of the kernel's `struct tcp_info` the field tcpi_last_data_sent, in milliseconds."""


class TooSlow(ConnectionAbortedError):
    """The client took less than the floor asks for."""


@dataclass(frozen=True, slots=True)
class Floor:
    """At least so many bytes in so many seconds, or the rest of what there is."""

    bytes: int
    seconds: float


FLOOR: Final = Floor(bytes=256 * 1024, seconds=120.0)
"""About 2 KiB/s: a fifth of the slowest line that counts as healthy, so that an outage of a minute and a half does no
harm to it. A client that takes a byte a second is given up after two minutes."""


def cut(transport: asyncio.Transport) -> None:
    """End a connection with what waits in its socket, which the kernel would else go on to deliver, however slowly."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def unacknowledged(fd: int) -> int:
    """The bytes in this socket that its peer has not acknowledged; 0 where the system does not say."""
    try:
        answer = fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0" * 4)
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])


def silent_seconds(transport: asyncio.Transport) -> float:
    """How long nothing was sent to a client that has acknowledged everything; 0 while something is under way."""
    sock = transport.get_extra_info("socket")
    if unacknowledged(sock.fileno()):
        return 0.0
    information = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_SENT.size)
    return float(_LAST_SENT.unpack(information)[0]) / 1000
