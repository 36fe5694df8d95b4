"""Stretches of a body on their way into a socket: of a file, of memory, or of either under TLS.

Only the last are copied and encrypted, a piece at a time: that is what a client of TLS takes of our memory.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from proxy.server.tls import PIECE_BYTES


class Stretch(ABC):
    """From `offset`, which moves on, to `stop`. `done` is for whoever waits; `weight` is what a byte costs."""

    __slots__ = ("done", "offset", "sent", "sink", "stop", "watched")

    weight: ClassVar[int] = 1

    def __init__(self, sink: int, offset: int, stop: int, done: asyncio.Future[None]) -> None:
        self.sink = sink
        self.offset = offset
        self.stop = stop
        self.done = done
        self.sent = 0
        """Bytes that the socket took, in all that they were wrapped in."""
        self.watched = False
        """Whether the loop tells when the socket takes more."""

    @abstractmethod
    def push(self, most: int) -> bool:
        """Move up to so many bytes. Whether the socket took all of them.

        Raises BlockingIOError if it took none; another OSError when no more can be moved at all.
        """


class FileStretch(Stretch):
    """Of a file, straight from the kernel's pages."""

    __slots__ = ("_fd",)

    def __init__(self, sink: int, fd: int, offset: int, stop: int, done: asyncio.Future[None]) -> None:
        super().__init__(sink, offset, stop, done)
        self._fd = fd

    def push(self, most: int) -> bool:
        """One sendfile."""
        wanted = min(self.stop - self.offset, most)
        moved = os.sendfile(self.sink, self._fd, self.offset, wanted)
        if moved == 0:
            raise _ended_early()
        self.offset += moved
        self.sent += moved
        return moved == wanted


class MemoryStretch(Stretch):
    """Of bytes in memory."""

    __slots__ = ("_content",)

    def __init__(self, sink: int, content: bytes, done: asyncio.Future[None]) -> None:
        super().__init__(sink, 0, len(content), done)
        self._content = memoryview(content)

    def push(self, most: int) -> bool:
        """One write."""
        wanted = min(self.stop - self.offset, most)
        moved = os.write(self.sink, self._content[self.offset : self.offset + wanted])
        self.offset += moved
        self.sent += moved
        return moved == wanted


class SealedStretch(Stretch):
    """Of a file or of bytes, through `seal`, which makes of a piece what is sent in its place.

    A file is read on the loop: what `visible` has promised of it is in memory.
    """

    __slots__ = ("_end", "_seal", "_sealed", "_source")

    weight: ClassVar[int] = 4

    def __init__(
        self,
        sink: int,
        source: int | bytes,
        offset: int,
        stop: int,
        done: asyncio.Future[None],
        seal: Callable[[bytes], bytes],
    ) -> None:
        super().__init__(sink, offset, stop, done)
        self._source = source
        self._seal = seal
        self._sealed = memoryview(b"")
        self._end = offset
        """Where what is sealed ends in the source."""

    def push(self, most: int) -> bool:
        """Piece by piece; none is cut to fit `most`."""
        end = self.sent + most
        while self.sent < end and self.offset < self.stop:
            if not self._sealed:
                self._sealed = memoryview(self._seal(self._piece()))
            moved = os.write(self.sink, self._sealed)
            self._sealed = self._sealed[moved:]
            self.sent += moved
            if self._sealed:
                return False
            self.offset = self._end
        return True

    def _piece(self) -> bytes:
        self._end = min(self.stop, self.offset + PIECE_BYTES)
        if isinstance(self._source, bytes):
            return self._source[self.offset : self._end]
        piece = os.pread(self._source, self._end - self.offset, self.offset)
        if not piece:
            raise _ended_early()
        self._end = self.offset + len(piece)
        return piece


def _ended_early() -> ConnectionAbortedError:
    return ConnectionAbortedError("the file ended early")
