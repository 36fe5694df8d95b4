"""The line between the host and one server: datagrams in order, open files with them, an end that is noticed at once.

A Unix socket of SOCK_SEQPACKET on this machine, within one user. What cannot be sent at once waits: that is bounded by
the requests that are being answered, each of which has at most one answer and one piece on its way.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from proxy.workers.messages import MAX_MESSAGE_BYTES, Kind, read, written

_MESSAGES_A_TURN: Final = 64
"""After so many the rest of the event loop has its turn."""
_FD_BYTES: Final = 4
_FD_SPACE: Final = socket.CMSG_SPACE(_FD_BYTES)


class Reader(Protocol):
    """Whoever is told."""

    def received(self, kind: Kind, number: int, content: bytes, fd: int | None) -> None:
        """A message came; `fd` belongs to the reader from now on."""

    def ended(self) -> None:
        """The other side has gone, or the line is closed. Nothing more will come."""


class Link:
    """One end. Used on the event loop."""

    def __init__(self, sock: socket.socket, reader: Reader) -> None:
        """The socket is connected, and the link's from now on."""
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_MESSAGE_BYTES)
        self._sock = sock
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, int | None]] = deque()
        self._closed = False
        self._buffer = bytearray(MAX_MESSAGE_BYTES)
        self._view = memoryview(self._buffer)
        self._loop.add_reader(sock, self._readable)

    def send(self, kind: Kind, number: int = 0, content: bytes = b"", fd: int | None = None) -> None:
        """Send this in its turn, with a descriptor that is the link's from now on. Nothing happens after the end."""
        if self._closed:
            _close(fd)
            return
        message = written(kind, number, content)
        if self._waiting or not self._sent(message, fd):
            self._waiting.append((message, fd))
            if len(self._waiting) == 1 and not self._closed:
                self._loop.add_writer(self._sock, self._writable)

    def close(self) -> None:
        """End it. The reader is told."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        for _, fd in self._waiting:
            _close(fd)
        self._waiting.clear()
        self._reader.ended()

    def _sent(self, message: bytes, fd: int | None) -> bool:
        """Whether this does not have to wait."""
        try:
            if fd is None:
                self._sock.send(message)
            else:
                socket.send_fds(self._sock, [message], [fd])
        except BlockingIOError:
            return False
        except OSError:
            _close(fd)
            self._loop.call_soon(self.close)  # Never within a call of whoever is told of it.
            return True
        _close(fd)
        return True

    def _writable(self) -> None:
        while self._waiting:
            if not self._sent(*self._waiting[0]):
                return
            if self._closed:
                return
            self._waiting.popleft()
        self._loop.remove_writer(self._sock)

    def _readable(self) -> None:
        for _ in range(_MESSAGES_A_TURN):
            try:
                size, fds, _, _ = self._sock.recvmsg_into([self._buffer], _FD_SPACE, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                return self.close()
            if not size:
                return self.close()
            self._reader.received(*read(bytes(self._view[:size])), _descriptor(fds))
            if self._closed:
                return


def _descriptor(ancillary: Sequence[tuple[int, int, bytes]]) -> int | None:
    """The one that came with a message, if one did."""
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            return int.from_bytes(content[:_FD_BYTES], sys.byteorder)
    return None


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
