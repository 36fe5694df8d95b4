"""The growing file of one fill: written and hashed in order, once, by one thread at a time.

Blocking throughout; fills call it in their writer threads. A partial left by an earlier run of the program is taken up
where it ends: what is there is hashed first, so that the digest still covers every byte. The file is locked while its
fill runs: two processes that share the folder for a while never write to one, nor does one remove what the other uses.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.oci.names import Digest
from proxy.store.blobs import Blobs

if TYPE_CHECKING:
    from hashlib import _Hash

_PIECE: Final = 1024 * 1024


class InUse(Exception):
    """Another process writes to the file."""


class Partial:
    """An open partial file. `length` is the number of bytes written and hashed."""

    def __init__(self, blobs: Blobs, digest: Digest) -> None:
        self.fd = -1
        self.length = 0
        self.committed = False
        self.found = False
        """Whether the blob was stored before this fill had begun."""
        self._blobs = blobs
        self._digest = digest
        self._hash = digest.hasher()

    def open(self) -> None:
        """Open the file and hash what it holds, or open the blob itself if it was stored meanwhile.

        Raises OSError and InUse.
        """
        while not (self._open_blob() or self._open_locked()):
            pass  # It was removed at that moment, or has become the blob.
        if self.found:
            return
        piece = bytearray(min(_PIECE, os.fstat(self.fd).st_size))
        while read := os.preadv(self.fd, [piece], self.length):
            self._hash.update(memoryview(piece)[:read])
            self.length += read

    def write(self, content: bytes | memoryview, written: Callable[[], None] = lambda: None) -> int:
        """Append, and return how many bytes that were: all. Raises OSError.

        `written` is called once they can be read from the file, before they are hashed.
        """
        left = memoryview(content)
        while left:
            appended = os.pwrite(self.fd, left, self.length)
            self.length += appended
            written()
            self._hash.update(left[:appended])
            left = left[appended:]
        return len(content)

    def is_whole(self) -> bool:
        """Whether what was written so far has the digest."""
        return self.committed or self._hash.hexdigest() == self._digest.hex

    def commit(self) -> None:
        """Make the verified file a blob. Raises OSError."""
        if not self.committed:
            self._blobs.commit(self._digest, self._blobs.partial_path(self._digest), self.fd)
            self.committed = True

    def hash_so_far(self) -> _Hash:
        """The hash of what was written, to go on with elsewhere."""
        return self._hash.copy()

    def restart(self) -> None:
        """Forget what was written, to begin anew. Raises OSError."""
        os.ftruncate(self.fd, 0)
        self.length = 0
        self._hash = self._digest.hasher()

    def discard(self) -> None:
        """Remove the file: its bytes are wrong. Those who read from it keep their open file."""
        self._blobs.partial_path(self._digest).unlink(missing_ok=True)

    def drop_if_empty(self) -> None:
        """Remove the file if nothing was written: there is nothing to go on from."""
        if self.fd >= 0 and not self.committed and self.length == 0:
            self.discard()

    def unlock(self) -> None:
        """Nothing more is written. The file stays open, and what it was locked for may be done by another fill."""
        if self.fd >= 0:
            fcntl.flock(self.fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file. What is on disk by then may be another fill's."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _open_blob(self) -> bool:
        if not self._blobs.is_usable(self._digest):
            return False
        try:
            self.fd = os.open(self._blobs.path(self._digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self.length = os.fstat(self.fd).st_size
        self.committed = self.found = True
        return True

    def _open_locked(self) -> bool:
        """Whether the locked file is still the one with this name."""
        path = self._blobs.partial_path(self._digest)
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self.fd), path.stat()):
                    return True
        except BlockingIOError:
            self.close()
            raise InUse(path.name) from None
        self.close()
        return False
