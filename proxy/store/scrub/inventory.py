"""What is on disk and what the index says of it, brought to agree, one folder of `blobs/` after the other.

A blob without a row - the index was lost, or we died between the name of a file and its row - gets its row back: its
bytes were verified before it had its name. A row without a file goes. Which repository has a blob is not to be learned
from bytes: that is proven anew, by a free HEAD. Whatever in `blobs/` is not called by a digest is none of ours.

A folder is taken as a whole into memory, which is one part in 256 of all; rows are written a few hundred at a time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from proxy.oci.errors import DigestInvalid
from proxy.oci.manifests import MAX_MANIFEST_BYTES, is_manifest
from proxy.oci.names import ALGORITHMS, Digest
from proxy.store.blobs import Blobs
from proxy.store.index import Index
from proxy.store.integrity import Integrity
from proxy.store.threads import in_thread

log = logging.getLogger(__name__)

_JOB_ROWS: Final = 256
_FOREIGN_NAMED: Final = 5
_FOREIGN_KEPT: Final = 1000
_HEAD_BYTES: Final = 64
_PREFIX: Final = re.compile(r"\A[0-9a-f]{2}\Z")
_INSERT: Final = "INSERT OR IGNORE INTO blobs (digest, size, manifest, stored_at, used_at) VALUES (?, ?, ?, ?, ?)"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, order=True)
class Folder:
    """The blobs of an algorithm whose hexadecimal digits begin like this."""

    algorithm: str
    prefix: str

    @classmethod
    def of(cls, digest: Digest) -> Folder:
        """The one that this digest belongs to."""
        return cls(digest.algorithm, digest.hex[:2])


@dataclass(frozen=True, slots=True)
class _File:
    """A blob on disk that has no row: bytes, and when it was written (epoch)."""

    digest: Digest
    size: int
    manifest: bool
    written_at: float


@dataclass(slots=True)
class _Survey:
    """What a folder holds: all blobs, in order, and those for which index and disk do not agree."""

    digests: list[Digest] = field(default_factory=list)
    unknown: list[_File] = field(default_factory=list)
    missing: list[Digest] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


class Inventory:
    """Used on the event loop; blocking work runs in `executor`, and ends soon when its caller leaves."""

    def __init__(self, blobs: Blobs, index: Index, integrity: Integrity, executor: Executor) -> None:
        self._blobs = blobs
        self._index = index
        self._integrity = integrity
        self._executor = executor
        self._foreign: set[str] = set()
        self._reported: set[str] = set()

    async def folders(self) -> list[Folder]:
        """All that have files or rows, in order. Raises OSError and sqlite3.Error."""
        known = await self._index.query(_folders_of_rows)
        found, foreign = await in_thread(self._executor, lambda: _folders_on_disk(self._blobs.folder))
        self._see(foreign)
        return sorted({*known, *found})

    async def take(self, folder: Folder) -> tuple[list[Digest], int]:
        """Make disk and index agree; returns what is stored, in order, and how many rows had no file.

        Raises OSError and sqlite3.Error.
        """
        rows = await self._index.query(lambda connection: _rows(connection, folder))  # First: see `_survey`.
        stop = threading.Event()
        survey = await in_thread(self._executor, lambda: self._survey(folder, rows, stop), stop.set)
        self._see(survey.foreign)
        missing = [digest for digest in survey.missing if not self._blobs.is_leaving(digest)]
        gone = 0
        for files in _chunks(survey.unknown):
            await self._index.write(partial(self._add, files), remember=True)
        for digests in _chunks(missing):
            gone += await self._index.write(partial(self._forget, digests))
        self._integrity.lost(gone)
        return survey.digests, gone

    async def take_all(self) -> int:
        """All of it; returns how many blobs there are. Raises OSError and sqlite3.Error."""
        count = 0
        for folder in await self.folders():
            digests, _ = await self.take(folder)
            count += len(digests)
        self.report()
        return count

    def report(self) -> None:
        """Say, once, what else was seen in the folders of blobs."""
        if self._foreign:
            some = ", ".join(sorted(self._foreign)[:_FOREIGN_NAMED])
            log.warning("the folder of blobs holds what is not the cache's, which is left alone, such as: %s", some)
        self._reported |= self._foreign
        self._foreign.clear()

    def _survey(self, folder: Folder, rows: set[str], stop: threading.Event) -> _Survey:
        """A row that was there before the look had its file before, too: if there is none now, it is gone."""
        survey = _Survey()
        for entry in _entries(self._blobs.folder / folder.algorithm / folder.prefix):
            if stop.is_set():
                return survey
            digest = _digest_of(folder, entry)
            if digest is None:
                survey.foreign.append(entry.path)
                continue
            survey.digests.append(digest)
            if str(digest) not in rows:
                with contextlib.suppress(OSError):  # Evicted just now; or it cannot be read, as the scrub finds too.
                    survey.unknown.append(_file(digest, entry))
        survey.digests.sort(key=lambda each: each.hex)
        missing = rows.difference(map(str, survey.digests))
        survey.missing = [Digest.parse(each) for each in sorted(missing)]
        return survey

    def _add(self, files: Sequence[_File], connection: sqlite3.Connection) -> None:
        """In the writer's thread, so after all that was written when we looked, and before all that comes."""
        connection.executemany(
            _INSERT,
            [
                (str(each.digest), each.size, int(each.manifest), each.written_at, each.written_at)
                for each in files
                if self._blobs.path(each.digest).exists()
            ],
        )

    def _forget(self, digests: Sequence[Digest], connection: sqlite3.Connection) -> int:
        """In the writer's thread. How many rows went."""
        rows = [str(digest) for digest in digests if not self._blobs.path(digest).exists()]
        return sum(connection.execute("DELETE FROM blobs WHERE digest = ?", (row,)).rowcount for row in rows)

    def _see(self, foreign: Iterable[str]) -> None:
        room = _FOREIGN_KEPT - len(self._foreign) - len(self._reported)
        self._foreign.update(islice((path for path in foreign if path not in self._reported), room))


def _folders_of_rows(connection: sqlite3.Connection) -> list[Folder]:
    found: list[Folder] = []
    after = ""
    while row := connection.execute("SELECT MIN(digest) FROM blobs WHERE digest > ?", (after,)).fetchone()[0]:
        folder = Folder.of(Digest.parse(row))
        found.append(folder)
        after = _end(folder)
    return found


def _folders_on_disk(blobs: Path) -> tuple[list[Folder], list[str]]:
    found: list[Folder] = []
    foreign = [entry.path for entry in _entries(blobs) if entry.name not in ALGORITHMS]
    for algorithm in ALGORITHMS:
        for entry in _entries(blobs / algorithm):
            if _PREFIX.match(entry.name) and entry.is_dir(follow_symlinks=False):
                found.append(Folder(algorithm, entry.name))
            else:
                foreign.append(entry.path)
    return found, foreign


def _rows(connection: sqlite3.Connection, folder: Folder) -> set[str]:
    question = "SELECT digest FROM blobs WHERE digest >= ? AND digest < ?"
    found = connection.execute(question, (f"{folder.algorithm}:{folder.prefix}", _end(folder)))
    return {digest for (digest,) in found}


def _end(folder: Folder) -> str:
    """What sorts after every digest of this folder, and before those of the next."""
    return f"{folder.algorithm}:{folder.prefix}g"


def _entries(path: Path) -> Iterator[os.DirEntry[str]]:
    """What is in a folder; nothing if it is none. Raises OSError."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as entries:
        yield from entries


def _digest_of(folder: Folder, entry: os.DirEntry[str]) -> Digest | None:
    try:
        digest = Digest.parse(f"{folder.algorithm}:{entry.name}")
    except DigestInvalid:
        return None
    return digest if Folder.of(digest) == folder and entry.is_file(follow_symlinks=False) else None


def _file(digest: Digest, entry: os.DirEntry[str]) -> _File:
    """Raises OSError."""
    status = entry.stat(follow_symlinks=False)
    manifest = status.st_size <= MAX_MANIFEST_BYTES and _holds_manifest(Path(entry.path))
    return _File(digest, status.st_size, manifest, status.st_mtime)


def _holds_manifest(path: Path) -> bool:
    """Little is read of what is none, and nothing large is parsed for nothing: that would stop everything else."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if head.lstrip()[:1] not in (b"", b"{"):
            return False
        body = head + file.read()
    return b'"schemaVersion"' in body and is_manifest(body)


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + _JOB_ROWS] for start in range(0, len(items), _JOB_ROWS))
