"""What fills that did not come to their end have left: partial files that no fill writes to.

The next fill of the same blob goes on from there. Until then they are the cheapest to do without, whatever their age:
to drop one costs bandwidth, and breaks no pull. Those that have waited longest go first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

from proxy.clock import Clock
from proxy.oci.errors import DigestInvalid
from proxy.oci.names import Digest
from proxy.store.blobs import Blobs
from proxy.store.threads import in_thread


class Leftovers:
    """The partial files of no running fill, in the order in which they were left. Used on the event loop."""

    def __init__(self, directory: Path, blobs: Blobs, executor: Executor, clock: Clock) -> None:
        self._folder = directory / "partial"
        self._blobs = blobs
        self._executor = executor
        self._clock = clock
        self._sizes: dict[Digest, int] = {}
        self._left_at: dict[Digest, float] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def scan(self) -> None:
        """Take note of what is there. Blocking; before anything else is called. Raises OSError."""
        found = []
        for path in self._folder.iterdir():
            with contextlib.suppress(DigestInvalid, FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime, Digest.parse(path.name.replace("-", ":", 1)), status.st_size))
        for modified_at, digest, size in sorted(found, key=lambda each: each[0]):
            self._add(digest, size, modified_at)

    def put(self, digest: Digest, size: int) -> None:
        """A fill has left so many bytes, if any."""
        self.take(digest)
        if size:
            self._add(digest, size, self._clock.time())

    def take(self, digest: Digest) -> int:
        """A fill goes on from there; its bytes count no more, and are returned."""
        size = self._sizes.pop(digest, 0)
        self._left_at.pop(digest, None)
        self.bytes -= size
        return size

    def droppable(self, wanted: int, left_before: float) -> tuple[int, int]:
        """How many `drop` would remove, and their bytes."""
        going = self._going(wanted, left_before)
        return len(going), sum(self._sizes[digest] for digest in going)

    async def drop(self, wanted: int, left_before: float) -> tuple[int, int]:
        """Remove the oldest until so many bytes are freed, and all that were left before a moment (since the epoch).

        Returns how many were removed and their bytes.
        """
        count = freed = 0
        for digest in self._going(wanted, left_before):
            size = self.take(digest)  # 0 if a fill has begun to go on from it.
            if size and await in_thread(self._executor, partial(_remove, self._blobs.partial_path(digest))):
                count, freed = count + 1, freed + size
        return count, freed

    def _going(self, wanted: int, left_before: float) -> list[Digest]:
        going = []
        for digest, left_at in self._left_at.items():
            if wanted <= 0 and left_at >= left_before:
                break
            wanted -= self._sizes[digest]
            going.append(digest)
        return going

    def _add(self, digest: Digest, size: int, at: float) -> None:
        self._sizes[digest] = size
        self._left_at[digest] = at
        self.bytes += size


def _remove(path: Path) -> bool:
    """Whether the file is gone. One that a fill has locked, of whatever process, is left to it. Blocking."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
