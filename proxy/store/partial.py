"""The growing file of one fill: written and hashed in order, once, by one thread at a time.

Blocking throughout; fills call it in their writer threads. A partial left by an earlier run of the program is taken up
where it ends: what is there is hashed first, so that the digest still covers every byte.
"""

from __future__ import annotations

import os
from typing import Final

from proxy.oci.names import Digest
from proxy.store.blobs import Blobs

_PIECE: Final = 1024 * 1024


class Partial:
    """An open partial file. `length` is the number of bytes written and hashed."""

    def __init__(self, blobs: Blobs, digest: Digest) -> None:
        self.fd = -1
        self.length = 0
        self.committed = False
        self._blobs = blobs
        self._digest = digest
        self._hash = digest.hasher()

    def open(self) -> None:
        """Open the file and hash what it holds, or open the blob itself if it was stored meanwhile. Raises OSError."""
        if self._blobs.holds(self._digest):
            self.fd = os.open(self._blobs.path(self._digest), os.O_RDONLY | os.O_CLOEXEC)
            self.length = os.fstat(self.fd).st_size
            self.committed = True
            return
        self.fd = os.open(self._blobs.partial_path(self._digest), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        piece = bytearray(_PIECE)
        while read := os.preadv(self.fd, [piece], self.length):
            self._hash.update(memoryview(piece)[:read])
            self.length += read

    def write(self, content: bytes | memoryview) -> int:
        """Append, and return how many bytes that were: all. Raises OSError."""
        left = memoryview(content)
        while left:
            written = os.pwrite(self.fd, left, self.length)
            self.length += written
            self._hash.update(left[:written])
            left = left[written:]
        return len(content)

    def is_whole(self) -> bool:
        """Whether what was written so far has the digest."""
        return self.committed or self._hash.hexdigest() == self._digest.hex

    def commit(self) -> None:
        """Make the verified file a blob. Raises OSError."""
        if not self.committed:
            self._blobs.commit(self._digest, self._blobs.partial_path(self._digest), self.fd)
            self.committed = True

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

    def close(self) -> None:
        """Close the file. What is on disk by then may be another fill's."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
