"""Reads stored files again, one after the other, and compares them with their digests. Blocking, a piece at a time.

It reads past the page cache: what is compared is what is on the disk, and pages that pulls are answered from stay.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from proxy.oci.names import Digest
from proxy.store.blobs import Blobs
from proxy.store.pages import aligned_buffer, is_unreadable, open_past_cache, read_past_cache

if TYPE_CHECKING:
    from hashlib import _Hash

log = logging.getLogger(__name__)

FILE_BYTES: Final = 16 * 1024
"""What a file costs at least, however small it is: a disk that seeks takes that long for it."""


@dataclass(frozen=True, slots=True)
class Bad:
    """A file that is not what its name says, or cannot be read; `status` tells which file that was."""

    digest: Digest
    status: os.stat_result | None
    reason: str


@dataclass(slots=True)
class Piece:
    """What came of one piece of work; `cost` is in bytes, `last` the digest up to which all is done."""

    files: int = 0
    bytes: int = 0
    cost: int = 0
    last: Digest | None = None
    bad: list[Bad] = field(default_factory=list)


class Rehash:
    """Reads in pieces of at most so many bytes. `close` it when no `read` runs."""

    def __init__(self, blobs: Blobs, piece: int) -> None:
        self._blobs = blobs
        self._digests: deque[Digest] = deque()
        self._buffer = aligned_buffer(piece)
        self._file: _File | None = None

    def __bool__(self) -> bool:
        """Whether something is left to read."""
        return self._file is not None or bool(self._digests)

    def add(self, digests: Iterable[Digest]) -> None:
        """Read these too, after all others."""
        self._digests.extend(digests)

    def read(self) -> Piece:
        """Go on for one piece. What was evicted in the meantime is passed over."""
        piece = Piece()
        while self and piece.cost < len(self._buffer):
            digest = self._file.digest if self._file is not None else self._digests.popleft()
            try:
                self._read_on(digest, piece)
            except FileNotFoundError:
                piece.last = digest
            except OSError as error:
                self._fail(digest, error, piece)
        return piece

    def close(self) -> None:
        """Close the file that is open, if any."""
        if self._file is not None:
            os.close(self._file.fd)
            self._file = None

    def _read_on(self, digest: Digest, piece: Piece) -> None:
        if self._file is None:
            self._file = _File(digest, open_past_cache(self._blobs.path(digest)), digest.hasher())
            piece.cost += FILE_BYTES
        file = self._file
        room = (len(self._buffer) - piece.cost) // FILE_BYTES * FILE_BYTES
        into = self._buffer[: max(FILE_BYTES, room)]
        read = read_past_cache(file.fd, into, file.offset)
        file.hash.update(into[:read])
        file.offset += read
        piece.bytes += read
        piece.cost += read
        if read == len(into):
            return
        if file.hash.hexdigest() != digest.hex:
            piece.bad.append(Bad(digest, os.fstat(file.fd), "its bytes are others now"))
        piece.files += 1
        piece.last = digest
        self.close()

    def _fail(self, digest: Digest, error: OSError, piece: Piece) -> None:
        """One that the disk does not give back is as bad as a wrong one. Any other failure may pass."""
        if is_unreadable(error):
            status = os.fstat(self._file.fd) if self._file is not None else None
            piece.bad.append(Bad(digest, status, str(error.strerror)))
            piece.files += 1
        else:
            log.warning("cannot read %s now: %s", digest, error)
        piece.last = digest
        self.close()


@dataclass(slots=True)
class _File:
    digest: Digest
    fd: int
    hash: _Hash
    offset: int = 0
