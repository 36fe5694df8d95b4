"""What we know besides the bytes: where tags point, which repository holds what, which repositories are public.

SQLite in WAL mode. Reads happen where they are asked for (microseconds, and most from memory); writes go to one writer
thread, which commits what has gathered, so that no request waits for a commit. Until a write is committed its value is
kept in `_pending`, so that we always read what we wrote. A crash loses at most the writes of the last moments; that
costs upstream HEADs, never wrong answers: the index can be lost as a whole and is built again from upstream and from
the blobs on disk. A file that is not a database of our version is set aside, and a new one begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.lru import Lru
from proxy.oci.manifests import Descriptor
from proxy.oci.names import Digest, Repository, Tag
from proxy.policy.access import Visibility
from proxy.policy.freshness import StoredTag

log = logging.getLogger(__name__)

_VERSION: Final = 2
_REMEMBERED_ROWS: Final = 20_000
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS tags (
    repository TEXT, tag TEXT, accept TEXT, checked_at REAL, source TEXT,
    digest TEXT, media_type TEXT, size INTEGER,
    previous_digest TEXT, previous_media_type TEXT, previous_size INTEGER,
    PRIMARY KEY (repository, tag, accept)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS links (
    repository TEXT, digest TEXT, media_type TEXT, size INTEGER, held INTEGER,
    PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS visibility (
    repository TEXT PRIMARY KEY, public INTEGER, checked_at REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blobs (
    digest TEXT PRIMARY KEY, size INTEGER) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
"""

_Key = tuple[str, ...]
_Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """What a repository is known to have at a digest.

    `held` is proof: upstream answered for this digest in this repository. Without it, a manifest of the repository
    merely names the digest: that tells its size and type, but is no right to bytes that came by another repository.
    """

    descriptor: Descriptor
    held: bool


class Index:
    """The index of one cache folder. All methods but `open` and `close` are called on the event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: sqlite3.Connection | None = None
        self._write_connection: sqlite3.Connection | None = None
        self._pending: dict[_Key, _Row] = {}
        self._remembered: Lru[_Key, _Row] = Lru(_REMEMBERED_ROWS)
        self._writes: queue.SimpleQueue[tuple[_Key, _Row] | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.blob_count = 0
        self.blob_bytes = 0

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open or create the database and start the writer. Blocking. Raises OSError or sqlite3.Error."""
        try:
            self._reader = self._connect()
        except sqlite3.OperationalError:  # No fault of the file: it cannot be reached, or the disk is full.
            raise
        except sqlite3.DatabaseError as error:
            aside = self._set_aside()
            log.warning("the index cannot be used (%s); it is now %s and a new one is begun", error, aside.name)
            self._reader = self._connect()
        self._write_connection = self._connect()
        self._loop = loop
        self._writer = threading.Thread(target=self._write_forever, name="index-writer", daemon=True)
        self._writer.start()

    def close(self) -> None:
        """Commit what was written and close. Blocking."""
        if self._writer is not None:
            self._writes.put(None)
            self._writer.join()
        for connection in (self._write_connection, self._reader):
            if connection is not None:
                connection.close()

    def tag(self, repository: Repository, tag: Tag, accept: str) -> StoredTag | None:
        """What is stored for a tag as seen by clients whose Accept has this key ("" for all types)."""
        row = self._get("tags", str(repository), tag.name, accept)
        if row is None:
            return None
        checked_at, source, *columns = row
        target, previous = _descriptor(*columns[:3]), _descriptor(*columns[3:]) if columns[3] else None
        return StoredTag(target, previous, float(checked_at), None if source is None else str(source))  # type: ignore[arg-type]

    def put_tag(self, repository: Repository, tag: Tag, accept: str, stored: StoredTag) -> None:
        """Remember where a tag points."""
        previous = _columns(stored.previous) if stored.previous else (None, None, None)
        row = (stored.checked_at, stored.source, *_columns(stored.target), *previous)
        self._put(("tags", str(repository), tag.name, accept), row)

    def link(self, repository: Repository, digest: Digest) -> Link | None:
        """What is known of a digest in this repository."""
        row = self._get("links", str(repository), str(digest))
        if row is None:
            return None
        media_type, size, held = row
        return Link(Descriptor(digest, str(media_type), size if isinstance(size, int) else None), bool(held))

    def put_link(self, repository: Repository, descriptor: Descriptor, *, held: bool) -> None:
        """Remember that a repository names a digest or, with `held`, was shown to have it. Proof is never unlearned."""
        known = self.link(repository, descriptor.digest)
        if known is not None and known.held and not held:
            return
        key = ("links", str(repository), str(descriptor.digest))
        self._put(key, (descriptor.media_type, descriptor.size, int(held)))

    def visibility(self, repository: Repository) -> Visibility | None:
        """Whether a repository was last seen to be public."""
        row = self._get("visibility", str(repository))
        return None if row is None else Visibility(bool(row[0]), float(row[1]))  # type: ignore[arg-type]

    def put_visibility(self, repository: Repository, visibility: Visibility) -> None:
        """Remember whether a repository is public."""
        self._put(("visibility", str(repository)), (int(visibility.public), visibility.checked_at))

    def repositories(self, after: str, limit: int) -> list[Repository]:
        """Repositories that were shown to have something, in order, from the one after this. Blocking; any thread."""
        query = "SELECT DISTINCT repository FROM links WHERE repository > ? AND held = 1 ORDER BY repository LIMIT ?"
        try:
            with contextlib.closing(sqlite3.connect(self._path)) as connection:
                rows = connection.execute(query, (after, limit)).fetchall()
        except sqlite3.Error as error:
            log.error("the repositories cannot be read from the index: %s", error)
            return []
        return [Repository(*row[0].split("/", 1)) for row in rows]

    def blob_size(self, digest: Digest) -> int | None:
        """The size in bytes of a blob when it was stored."""
        row = self._get("blobs", str(digest))
        return row[0] if row is not None and isinstance(row[0], int) else None

    def put_blob(self, digest: Digest, size: int) -> None:
        """Remember that a blob was stored; `size` in bytes."""
        known = self.blob_size(digest)
        if known == size:
            return
        self.blob_count += known is None
        self.blob_bytes += size - (known or 0)
        self._put(("blobs", str(digest)), (size,))

    def _get(self, *key: str) -> _Row | None:
        row = self._pending.get(key) or self._remembered.get(key)
        if row is None:
            row = self._select(key)
            if row is not None:
                self._remembered.put(key, row)
        return row

    def _put(self, key: _Key, row: _Row) -> None:
        self._pending[key] = row
        self._remembered.put(key, row)
        self._writes.put((key, row))

    def _select(self, key: _Key) -> _Row | None:
        assert self._reader is not None
        try:
            row: _Row | None = self._reader.execute(_SELECT[key[0]], key[1:]).fetchone()
        except sqlite3.Error as error:
            log.error("reading the index failed, upstream is asked instead: %s", error)
            return None
        return row

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                raise sqlite3.DatabaseError(f"it has version {version}, this program reads {_VERSION}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
            count, total = connection.execute("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM blobs").fetchone()
            self.blob_count, self.blob_bytes = count, total
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_aside(self) -> Path:
        number = 1
        while (aside := self._path.with_name(f"{self._path.name}.unusable-{number}")).exists():
            number += 1
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self._path.with_name(self._path.name + suffix).unlink()
        return self._path.replace(aside)

    def _write_forever(self) -> None:
        assert self._write_connection is not None
        stopping = False
        while not stopping:
            batch = [self._writes.get()]
            while not self._writes.empty():
                batch.append(self._writes.get())
            stopping = None in batch
            self._commit(self._write_connection, [write for write in batch if write is not None])

    def _commit(self, connection: sqlite3.Connection, batch: list[tuple[_Key, _Row]]) -> None:
        try:
            connection.execute("BEGIN")
            for key, row in batch:
                connection.execute(_REPLACE[key[0]], (*key[1:], *row))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            log.error("%d changes could not be written to the index: %s", len(batch), error)
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # The loop may be closed by now.
            self._loop.call_soon_threadsafe(self._committed, batch)

    def _committed(self, batch: list[tuple[_Key, _Row]]) -> None:
        for key, row in batch:
            if self._pending.get(key) is row:
                del self._pending[key]


_COLUMNS: Final = {
    "tags": (
        ("repository", "tag", "accept"),
        (
            "checked_at",
            "source",
            "digest",
            "media_type",
            "size",
            "previous_digest",
            "previous_media_type",
            "previous_size",
        ),
    ),
    "links": (("repository", "digest"), ("media_type", "size", "held")),
    "visibility": (("repository",), ("public", "checked_at")),
    "blobs": (("digest",), ("size",)),
}
_SELECT: Final = {
    table: f"SELECT {', '.join(values)} FROM {table} WHERE {' AND '.join(f'{key} = ?' for key in keys)}"
    for table, (keys, values) in _COLUMNS.items()
}
_REPLACE: Final = {
    table: f"INSERT OR REPLACE INTO {table} ({', '.join(keys + values)}) VALUES ({', '.join('?' * len(keys + values))})"
    for table, (keys, values) in _COLUMNS.items()
}


def _columns(descriptor: Descriptor) -> tuple[str, str, int | None]:
    return str(descriptor.digest), descriptor.media_type, descriptor.size


def _descriptor(digest: object, media_type: object, size: object) -> Descriptor:
    return Descriptor(Digest.parse(str(digest)), str(media_type), size if isinstance(size, int) else None)
