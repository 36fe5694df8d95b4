"""Verified blobs on disk, by digest, and the small ones in memory.

    <directory>/blobs/<algorithm>/<first two of hex>/<hex>    whole, verified, immutable; manifests too
    <directory>/partial/<algorithm>-<hex>                     the growing file of one fill
    <directory>/partial/boot_id                               the boot of the machine that wrote the partials
    <directory>/bad/                                          what went bad and was set aside: see `bad_files`

The rule of this room: a name below `blobs/` exists only for content that was hashed and flushed to disk before the
rename that gave it the name. So a file is synced before its rename. The folder is not, not even a new one: a power
failure that undoes a rename costs a fetch and nothing else. The folder is synced when a bad file is set aside, since
that must not be undone. Partials are never synced: those of an earlier boot of the machine may have holes, and are
removed at start. So a power failure loses at most what was being written, and what was stored in the last moments.

What goes bad on disk later is noticed and set aside where that is cheap: the size is compared whenever a blob is
opened, and small content is hashed when it is read into memory. The rest is found by `scrub`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from proxy.lru import Lru
from proxy.oci.errors import Unavailable
from proxy.oci.names import Digest
from proxy.store.bad_files import BadFiles
from proxy.store.contents import Wrong, is_right, read_whole
from proxy.store.integrity import Found, Integrity
from proxy.store.pages import is_unreadable, read_through, resident_until
from proxy.store.threads import in_thread

log = logging.getLogger(__name__)

SMALL_BYTES: Final = 64 * 1024
"""Blobs up to this size are answered from memory in one write; larger ones are sent from their file."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_KNOWN_BLOBS: Final = 100_000
_WINDOW_BYTES: Final = 16 * 1024 * 1024
_READ_AHEAD_BYTES: Final = 4 * 1024 * 1024


@dataclass(slots=True)
class StoredBlob:
    """An open verified blob. Whoever receives it closes it; an open one stays readable when it is removed."""

    digest: Digest
    fd: int
    size: int
    blobs: Blobs

    async def visible(self, offset: int) -> int:
        """Where the bytes that can be sent without waiting for the disk end: some of those in the page cache, or what
        was brought there in a thread.

        Raises Unavailable if the disk fails; a file that cannot be read any more is set aside first.
        """
        resident = resident_until(self.fd, offset, min(self.size, offset + _WINDOW_BYTES), _READ_AHEAD_BYTES)
        if resident > offset:
            return resident
        end = min(self.size, offset + _READ_AHEAD_BYTES)
        await self.blobs.read_ahead(self, offset, end)
        return end

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _close_unwanted(opening: asyncio.Future[StoredBlob | None]) -> None:
    """Whoever asked for it has left."""
    stored = None if opening.cancelled() or opening.exception() else opening.result()
    if stored is not None:
        stored.close()


class Blobs:
    """The store of whole, verified content. Blocking file work runs in `executor`."""

    def __init__(self, directory: Path, memory: int, executor: Executor, integrity: Integrity) -> None:
        self.folder = directory / "blobs"
        self._partial = directory / "partial"
        self._bad = BadFiles(directory / "bad")
        self._executor = executor
        self._integrity = integrity
        self._memory: Lru[Digest, bytes] = Lru(memory, len)
        self._known: Lru[Digest, int] = Lru(_KNOWN_BLOBS)
        """Digests seen on disk: opening these meets a warm directory, so it is done without a thread."""
        self._leaving: Counter[Digest] = Counter()

    @property
    def memory_bytes(self) -> int:
        """Bytes of small blobs held in memory."""
        return self._memory.weight

    def prepare(self, *, alone: bool) -> None:
        """Make the folders and, where no other process uses them (`alone`), drop what a crash left and cannot be
        trusted. Blocking. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
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
        return self.folder / digest.algorithm / digest.hex[:2] / digest.hex

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
        if not self.is_usable(digest):
            return None
        size = self._integrity.size(digest)
        try:
            content = await asyncio.to_thread(read_whole, self.path(digest), digest)
        except FileNotFoundError:
            self._not_found(digest, size)
            return None
        except Wrong as wrong:
            await self.set_aside(digest, wrong.status, "read")
            return None
        except OSError as error:
            await self._give_up(digest, None, error)
            return None
        if content is not None:
            self.remember(digest, content)
        return content

    async def open(self, digest: Digest) -> StoredBlob | None:
        """The blob, open for reading, with the size that it was stored with (PROTOCOL 8.3), or None if we do not hold
        it. Raises OSError if the disk fails."""
        if not self.is_usable(digest):
            return None
        size = self._integrity.size(digest)
        try:
            stored = self._open(digest) if self._known.get(digest) is not None else await self._open_in_thread(digest)
        except OSError as error:
            await self._give_up(digest, None, error)
            return None
        if stored is None:
            self._not_found(digest, size)
            return None
        if size is None:
            self._integrity.adopt(digest, stored.size)
        elif size != stored.size:
            with stored:
                detail = f"{stored.size} bytes, not {size}"
                await self.set_aside(digest, os.fstat(stored.fd), "opened", detail)
            return None
        self._known.put(digest, stored.size)
        return stored

    async def read_ahead(self, stored: StoredBlob, start: int, stop: int) -> None:
        """Bring a part of an open blob into the page cache. Raises Unavailable."""
        try:
            await in_thread(self._executor, lambda: read_through(stored.fd, start, stop))
        except OSError as error:
            raise await self._broken(stored, error) from error

    async def verify(self, stored: StoredBlob) -> bool:
        """Whether an open blob is what its digest says, of which there is doubt; all of it is read. One that is not is
        set aside. Raises Unavailable if the disk fails."""
        left = threading.Event()
        try:
            right = await in_thread(self._executor, lambda: is_right(stored.fd, stored.digest, left), left.set)
        except OSError as error:
            raise await self._broken(stored, error) from error
        return right or not await self.set_aside(stored.digest, os.fstat(stored.fd), "opened", "its size was in doubt")

    async def put(self, digest: Digest, content: bytes) -> None:
        """Store content that was verified in memory. Raises OSError; what is small can be answered even then."""
        self.remember(digest, content)
        await asyncio.get_running_loop().run_in_executor(self._executor, self._put, digest, content)

    async def set_aside(self, digest: Digest, status: os.stat_result | None, found: Found, detail: object = "") -> bool:
        """Take a bad file out of the way; the next request fetches the blob anew. Returns whether there was one.

        With `status` this is done to that very file, and to none that was stored in its stead meanwhile.
        """
        self._known.drop(digest)
        with self.leaving([digest]):
            taken = await in_thread(self._executor, lambda: self._bad.take(self.path(digest), digest, status))
            if taken:
                self._integrity.failed(digest, found, detail)
        return taken

    async def discard(self, digests: Sequence[Digest]) -> list[Digest]:
        """Remove blobs from memory and disk; returns those that are gone now. Whoever has one open reads on."""
        for digest in digests:
            self._memory.drop(digest)
            self._known.drop(digest)
        return await in_thread(self._executor, lambda: [digest for digest in digests if self._unlink(digest)])

    @contextlib.contextmanager
    def leaving(self, digests: Sequence[Digest]) -> Iterator[None]:
        """While these are removed, by `discard` and from the index: a row without a file is nothing bad then."""
        self._leaving.update(digests)
        try:
            yield
        finally:
            self._leaving -= Counter(digests)  # One may be removed twice at a time.

    def is_leaving(self, digest: Digest) -> bool:
        """Whether it is being removed now."""
        return digest in self._leaving

    def is_usable(self, digest: Digest) -> bool:
        """Whether a file of this digest, if there is one, may be used. Called in any thread."""
        return self._bad.is_usable(digest)

    def commit(self, digest: Digest, written: Path, fd: int) -> None:
        """Give verified content its name: flush, then rename. Blocking."""
        os.fsync(fd)
        final = self.path(digest)
        final.parent.mkdir(parents=True, exist_ok=True)
        written.replace(final)
        self._bad.replaced(digest)

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
        return StoredBlob(digest, fd, os.fstat(fd).st_size, self)

    def _not_found(self, digest: Digest, size: int | None) -> None:
        """There is no file. If `size` says that there should be, and said so before the look, that is our loss; but it
        may be known by now."""
        self._known.drop(digest)
        if size is not None and digest not in self._leaving and self._integrity.size(digest) is not None:
            self._integrity.failed(digest, "missing")

    async def _broken(self, stored: StoredBlob, error: OSError) -> Unavailable:
        """What to raise when an open blob cannot be read."""
        log.error("cannot read %s: %s", stored.digest, error)
        if is_unreadable(error):
            await self._give_up(stored.digest, os.fstat(stored.fd), error)
        return Unavailable("the cache cannot read from its disk")

    async def _give_up(self, digest: Digest, status: os.stat_result | None, error: OSError) -> None:
        """Set a file aside that cannot be read. Raises any other error again."""
        self._known.drop(digest)
        if not is_unreadable(error):
            raise error
        await self.set_aside(digest, status, "read", error.strerror)

    def _unlink(self, digest: Digest) -> bool:
        try:
            self.path(digest).unlink(missing_ok=True)
        except OSError as error:
            log.error("%s cannot be removed: %s", digest, error)
            return False
        return True

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

    def remember(self, digest: Digest, content: bytes) -> None:
        """Keep verified content in memory, if it is small."""
        if len(content) <= SMALL_BYTES:
            self._memory.put(digest, content)
