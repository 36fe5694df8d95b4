"""Verified blobs on disk, by digest, and the small ones in memory.

    <directory>/blobs/<algorithm>/<first two of hex>/<hex>    whole, verified, immutable; manifests too
    <directory>/partial/<algorithm>-<hex>                     the growing file of one fill
    <directory>/partial/boot_id                               the boot of the machine that wrote the partials

The rule of this room: a name below `blobs/` exists only for content that was hashed and flushed to disk before the
rename that gave it the name. So a file is synced before its rename; the directory is not, since losing a rename in a
power failure costs a fetch and nothing else. Partials are never synced: those of an earlier boot of the machine may
have holes, and are removed at start. What goes bad on disk later is noticed where that is cheap, and removed: small
content is hashed when it is read into memory, of large content the size is compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import aiofiles

from proxy.lru import Lru
from proxy.oci.manifests import MAX_MANIFEST_BYTES
from proxy.oci.names import Digest
from proxy.store.threads import in_thread

log = logging.getLogger(__name__)

SMALL_BYTES: Final = 64 * 1024
"""Blobs up to this size are answered from memory in one write; larger ones are sent from their file."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_KNOWN_BLOBS: Final = 100_000
_WINDOW_BYTES: Final = 4 * 1024 * 1024
_PIECE_BYTES: Final = 256 * 1024


@dataclass(slots=True)
class StoredBlob:
    """An open verified blob. Whoever receives it closes it; an open one stays readable when it is removed."""

    fd: int
    size: int
    executor: Executor

    async def visible(self, offset: int) -> int:
        """Where the bytes that can be sent without waiting for the disk end: some MiB on, read ahead in a thread."""
        end = min(self.size, offset + _WINDOW_BYTES)
        if not (_is_resident(self.fd, offset) and _is_resident(self.fd, end - 1)):
            await in_thread(self.executor, lambda: _read_through(self.fd, offset, end))
        return end

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_resident(fd: int, offset: int) -> bool:
    """Whether this byte is in the page cache. Where the file system cannot say, it is taken not to be."""
    try:
        os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT)
    except OSError:
        return False
    return True


def _read_through(fd: int, start: int, stop: int) -> None:
    """Bring a part of a file into the page cache. Blocking."""
    piece = bytearray(_PIECE_BYTES)
    for offset in range(start, stop, _PIECE_BYTES):
        os.preadv(fd, [piece], offset)


def _close_unwanted(opening: asyncio.Future[StoredBlob | None]) -> None:
    """Whoever asked for it has left."""
    stored = None if opening.cancelled() or opening.exception() else opening.result()
    if stored is not None:
        stored.close()


class Blobs:
    """The store of whole, verified content. Blocking file work runs in `executor`."""

    def __init__(self, directory: Path, memory: int, executor: Executor) -> None:
        self._blobs = directory / "blobs"
        self._partial = directory / "partial"
        self._executor = executor
        self._memory: Lru[Digest, bytes] = Lru(memory, len)
        self._known: Lru[Digest, int] = Lru(_KNOWN_BLOBS)
        """Digests seen on disk: opening these meets a warm directory, so it is done without a thread."""

    @property
    def memory_bytes(self) -> int:
        """Bytes of small blobs held in memory."""
        return self._memory.weight

    def prepare(self, *, alone: bool) -> None:
        """Make the folders and, where no other process uses them (`alone`), drop what a crash left and cannot be
        trusted. Blocking. Raises OSError."""
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._partial.mkdir(parents=True, exist_ok=True)
        if not alone:
            return
        boot_id = _BOOT_ID.read_text() if _BOOT_ID.exists() else ""
        marker = self._partial / "boot_id"
        same_boot = bool(boot_id) and marker.exists() and marker.read_text() == boot_id
        for leftover in self._partial.iterdir():
            if not same_boot or leftover.name.startswith("put-"):
                leftover.unlink()
        marker.write_text(boot_id)

    def path(self, digest: Digest) -> Path:
        """Where this blob is, or would be."""
        return self._blobs / digest.algorithm / digest.hex[:2] / digest.hex

    def partial_path(self, digest: Digest) -> Path:
        """Where this blob's fill writes."""
        return self._partial / f"{digest.algorithm}-{digest.hex}"

    def recall(self, digest: Digest) -> bytes | None:
        """A small blob that is in memory."""
        return self._memory.get(digest)

    async def read(self, digest: Digest) -> bytes | None:
        """A whole small blob or manifest, from memory or disk, or None if we do not hold it. Raises OSError."""
        content = self._memory.get(digest)
        if content is not None:
            return content
        try:
            async with aiofiles.open(self.path(digest), "rb") as file:
                content = await file.read(MAX_MANIFEST_BYTES + 1)
        except FileNotFoundError:
            return None
        if len(content) > MAX_MANIFEST_BYTES:
            return None  # A layer: nobody asks for all of it at once but by mistake.
        if not digest.matches(content):
            await self.remove(digest, "its bytes are others now")
            return None
        self._remember(digest, content)
        return content

    async def open(self, digest: Digest) -> StoredBlob | None:
        """The blob, open for reading, or None if we do not hold it. Raises OSError if the disk fails."""
        if self._known.get(digest) is not None:
            stored = self._open(digest)
        else:
            stored = await self._open_in_thread(digest)
        if stored is None:
            self._known.drop(digest)
        else:
            self._known.put(digest, stored.size)
        return stored

    async def put(self, digest: Digest, content: bytes) -> None:
        """Store content that was verified in memory. Raises OSError; what is small can be answered even then."""
        self._remember(digest, content)
        await asyncio.get_running_loop().run_in_executor(self._executor, self._put, digest, content)

    async def remove(self, digest: Digest, reason: str) -> None:
        """Remove content that went bad on disk; the next request fetches it anew. Raises OSError."""
        log.error("blob %s is removed from the store: %s", digest, reason)
        self._known.drop(digest)
        await in_thread(self._executor, lambda: self.path(digest).unlink(missing_ok=True))

    def holds(self, digest: Digest) -> bool:
        """Whether the blob is on disk. Blocking."""
        return self.path(digest).exists()

    def commit(self, digest: Digest, written: Path, fd: int) -> None:
        """Give verified content its name: flush, then rename. Blocking."""
        os.fsync(fd)
        final = self.path(digest)
        final.parent.mkdir(parents=True, exist_ok=True)
        written.replace(final)

    async def _open_in_thread(self, digest: Digest) -> StoredBlob | None:
        opening = asyncio.get_running_loop().run_in_executor(self._executor, self._open, digest)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
            raise

    def _open(self, digest: Digest) -> StoredBlob | None:
        try:
            fd = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        return StoredBlob(fd, os.fstat(fd).st_size, self._executor)

    def _put(self, digest: Digest, content: bytes) -> None:
        fd, name = tempfile.mkstemp(prefix="put-", dir=self._partial)
        try:
            with open(fd, "wb") as file:
                file.write(content)
                file.flush()
                self.commit(digest, Path(name), fd)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise

    def _remember(self, digest: Digest, content: bytes) -> None:
        if len(content) <= SMALL_BYTES:
            self._memory.put(digest, content)
