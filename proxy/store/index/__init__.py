"""What we know besides the bytes: where tags point, which repository holds what, what was used when.

SQLite in WAL mode. Reads happen where they are asked for (microseconds, and most from memory); writes go to one writer
thread (`writer`). Until a write is committed its value is kept in `_pending`, so that we always read what we wrote. A
crash loses at most the writes of the last moments; that costs upstream HEADs, never wrong answers: the index can be
lost as a whole and is built again from upstream and from the blobs on disk (`store.scrub.inventory`).

Larger questions are asked with `query`, in a thread and on a connection of their own; larger changes are made with
`write`, in the writer's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from proxy.clock import Clock
from proxy.lru import Lru
from proxy.oci.manifests import Descriptor
from proxy.oci.names import Digest, Repository, Tag
from proxy.policy.access import Visibility
from proxy.policy.freshness import StoredTag
from proxy.store.index import database, rows
from proxy.store.index.rows import GONE, Change, Key, Row
from proxy.store.index.writer import Job, Writer
from proxy.store.threads import in_thread

log = logging.getLogger(__name__)

_REMEMBERED_ROWS: Final = 20_000
_READER_THREADS: Final = 2
_PROGRESS_STEPS: Final = 10_000
"""Steps of SQLite's machine, a millisecond at most, after which a query looks whether its caller has left."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Link:
    """What a repository is known to have at a digest.

    `held` is proof: upstream answered for this digest in this repository. Without it, a manifest of the repository
    merely names the digest: that tells its size and type, but is no right to bytes that came by another repository.
    """

    descriptor: Descriptor
    held: bool


@dataclass(frozen=True, slots=True)
class Vanished:
    """Something that we hold and upstream does not give any more: since when (epoch), and the code of its answer."""

    since: float
    reason: str


class Index:
    """The index of one cache folder. All methods but `open` and `close` are called on the event loop."""

    def __init__(self, path: Path, clock: Clock, changed: Callable[[], None] = lambda: None) -> None:
        """`changed` is called after each change of what can be read here."""
        self._path = path
        self._changed = changed
        self._clock = clock
        self._connections: list[sqlite3.Connection] = []
        self._writer: Writer[Change] | None = None
        self._readers = ThreadPoolExecutor(_READER_THREADS, "index-reader")
        self._pending: dict[Key, Row] = {}
        self._remembered: Lru[Key, Row] = Lru(_REMEMBERED_ROWS)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._committed_blobs = (0, 0)
        self._pending_blobs = (0, 0)
        self.version = 0
        """Another number after each change, too."""

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open or create the database and start the writer. Blocking. Raises OSError or sqlite3.Error."""
        try:
            self._connections.append(database.connect(self._path))
        except sqlite3.OperationalError:  # No fault of the file: it cannot be reached, or the disk is full.
            raise
        except sqlite3.DatabaseError as error:
            aside = database.set_aside(self._path)
            log.warning("the index cannot be used (%s); it is now %s and a new one is begun", error, aside.name)
            self._connections.append(database.connect(self._path))
        self._connections.append(database.connect(self._path))
        self._committed_blobs = database.totals(self._connections[0])
        self._loop = loop
        self._writer = Writer(self._connections[1], rows.write, self._written, self._failed)

    def close(self) -> None:
        """Commit what was written and close. Blocking."""
        if self._writer is not None:
            self._writer.close()
        self._readers.shutdown()
        for connection in self._connections:
            connection.close()

    @property
    def blob_count(self) -> int:
        """How many blobs and manifests are stored."""
        return self._committed_blobs[0] + self._pending_blobs[0]

    @property
    def blob_bytes(self) -> int:
        """The bytes of them."""
        return self._committed_blobs[1] + self._pending_blobs[1]

    async def query(self, ask: Callable[[sqlite3.Connection], T]) -> T:
        """What `ask` reads, in a thread, on a connection of its own. Raises sqlite3.Error.

        It sees what was committed, which is all but the last moments. A caller that is cancelled ends it.
        """
        left = threading.Event()

        def run() -> T:
            with contextlib.closing(database.read_only(self._path)) as connection:
                connection.set_progress_handler(left.is_set, _PROGRESS_STEPS)
                return ask(connection)

        return await in_thread(self._readers, run, left.set)

    async def write(self, work: Callable[[sqlite3.Connection], T], *, remember: bool = False) -> T:
        """What `work` returns, from the writer's thread, in a transaction, after all that was put before.

        What was read before is forgotten after it, unless `remember` says that it is still true. Raises what `work`
        raises, and sqlite3.Error.
        """
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[T] = loop.create_future()

        def run(connection: sqlite3.Connection) -> tuple[T, tuple[int, int]]:
            return work(connection), database.totals(connection)

        def settle(outcome: tuple[T, tuple[int, int]] | None, error: BaseException | None) -> None:
            if not remember:
                self._remembered.clear()
                self._has_changed()
            if outcome is not None:
                self._committed_blobs = outcome[1]
            if finished.done():
                return
            if outcome is None:
                assert error is not None
                finished.set_exception(error)
            else:
                finished.set_result(outcome[0])

        assert self._writer is not None
        self._writer.put(Job(run, lambda result, error: self._tell(lambda: settle(result, error))))
        return await finished

    def tag(self, repository: Repository, tag: Tag, accept: str) -> StoredTag | None:
        """What is stored for a tag as seen by clients whose Accept has this key ("" for all types)."""
        row = self._get("tags", str(repository), tag.name, accept)
        if row is None:
            return None
        checked_at, source, *columns = row
        target, previous = _descriptor(*columns[:3]), _descriptor(*columns[3:]) if columns[3] else None
        return StoredTag(target, previous, float(checked_at), None if source is None else str(source))  # type: ignore[arg-type]

    def put_tag(self, repository: Repository, tag: Tag, accept: str, stored: StoredTag) -> None:
        """Remember where a tag points, and that it did so at `checked_at`."""
        previous = _columns(stored.previous) if stored.previous else (None, None, None)
        row = (stored.checked_at, stored.source, *_columns(stored.target), *previous)
        self._put(("tags", str(repository), tag.name, accept), row)
        if not accept:
            seen = ("history", str(repository), tag.name, str(stored.target.digest))
            self._put(seen, (stored.checked_at, stored.checked_at))

    def link(self, repository: Repository, digest: Digest) -> Link | None:
        """What is known of a digest in this repository."""
        row = self._get("links", str(repository), str(digest))
        if row is None:
            return None
        media_type, size, held, *_ = row
        return Link(Descriptor(digest, str(media_type), size if isinstance(size, int) else None), bool(held))

    def put_link(self, repository: Repository, descriptor: Descriptor, *, held: bool) -> None:
        """Remember that a repository names a digest or, with `held`, was shown to have it. Proof is never unlearned."""
        known = self.link(repository, descriptor.digest)
        if known is not None and known.held and not held:
            return
        key = ("links", str(repository), str(descriptor.digest))
        self._put(key, (descriptor.media_type, descriptor.size, int(held), self._clock.time()))

    def visibility(self, repository: Repository) -> Visibility | None:
        """Whether a repository was last seen to be public."""
        row = self._get("visibility", str(repository))
        return None if row is None else Visibility(bool(row[0]), float(row[1]))  # type: ignore[arg-type]

    def put_visibility(self, repository: Repository, visibility: Visibility) -> None:
        """Remember whether a repository is public."""
        self._put(("visibility", str(repository)), (int(visibility.public), visibility.checked_at))

    def vanished(self, repository: Repository, tag: Tag | None) -> Vanished | None:
        """Whether upstream last denied a tag that we hold; without a tag, the repository as a whole."""
        row = self._get("vanished", str(repository), tag.name if tag else "")
        return None if row is None else Vanished(float(row[0]), str(row[1]))  # type: ignore[arg-type]

    def put_vanished(self, repository: Repository, tag: Tag | None, reason: str) -> bool:
        """Remember that upstream denies it. Returns whether that is news."""
        if self.vanished(repository, tag) is not None:
            return False
        self._put(("vanished", str(repository), tag.name if tag else ""), (self._clock.time(), reason))
        return True

    def drop_vanished(self, repository: Repository, tag: Tag | None) -> None:
        """Upstream has it again."""
        if self.vanished(repository, tag) is not None:
            self._delete(("vanished", str(repository), tag.name if tag else ""))

    def state(self, name: str) -> str | None:
        """A note that some background work left for itself."""
        row = self._get("state", name)
        return None if row is None else str(row[0])

    def put_state(self, name: str, value: str) -> None:
        """Leave a note."""
        self._put(("state", name), (value,))

    async def repositories(self, after: str, limit: int) -> list[Repository]:
        """Repositories that were shown to have something, in order, from the one after this."""
        question = "SELECT DISTINCT repository FROM links WHERE repository > ? AND held = 1 ORDER BY repository LIMIT ?"
        try:
            found = await self.query(lambda connection: connection.execute(question, (after, limit)).fetchall())
        except sqlite3.Error as error:
            log.error("the repositories cannot be read from the index: %s", error)
            return []
        return [Repository(*row[0].split("/", 1)) for row in found]

    def blob_size(self, digest: Digest) -> int | None:
        """The size in bytes of a blob when it was stored."""
        row = self._get("blobs", str(digest))
        return row[0] if row is not None and isinstance(row[0], int) else None

    def put_blob(self, digest: Digest, size: int, *, manifest: bool = False) -> None:
        """Remember that a blob or a manifest was stored, and so used; `size` in bytes."""
        row = self._get("blobs", str(digest))
        if row is not None and row[0] == size and (row[1] or not manifest):
            return
        now = self._clock.time()
        known = row[0] if row is not None and isinstance(row[0], int) else 0
        self._put(("blobs", str(digest)), (size, int(manifest), now, now), int(row is None), size - known)

    def drop_blob(self, digest: Digest) -> None:
        """This one is not stored any more; at once, as all reading sees it."""
        size = self.blob_size(digest)
        if size is not None:
            self._put(("blobs", str(digest)), GONE, -1, -size)

    async def forget_blobs(self, digests: Iterable[Digest]) -> None:
        """These are not stored any more. Raises sqlite3.Error."""
        gone = [(str(digest),) for digest in digests]
        await self.write(lambda connection: connection.executemany("DELETE FROM blobs WHERE digest = ?", gone))

    def _get(self, *key: str) -> Row | None:
        row = self._pending.get(key)
        if row is None:
            row = self._remembered.get(key)
        if row is None:
            row = self._select(key)
            if row is not None:
                self._remembered.put(key, row)
        return row or None

    def _put(self, key: Key, row: Row, count: int = 0, size: int = 0) -> None:
        self._pending[key] = row
        self._remembered.put(key, row)
        self._has_changed()
        self._pending_blobs = self._pending_blobs[0] + count, self._pending_blobs[1] + size
        assert self._writer is not None
        self._writer.put(Change(key, row, count, size))

    def _delete(self, key: Key) -> None:
        self._put(key, GONE)

    def _has_changed(self) -> None:
        self.version += 1
        self._changed()

    def _select(self, key: Key) -> Row | None:
        try:
            row = rows.read(self._connections[0], key)
        except sqlite3.Error as error:
            log.error("reading the index failed, upstream is asked instead: %s", error)
            self._failed(error)
            return None
        return row

    def _written(self, batch: Sequence[Change]) -> None:
        """Called in the writer's thread."""
        try:
            blobs = database.totals(self._connections[1])
        except sqlite3.Error:
            blobs = self._committed_blobs
        self._tell(lambda: self._committed(batch, blobs))

    def _failed(self, error: sqlite3.Error) -> None:
        """A file with bad content is not used again after the next start. Called in any thread; blocks for a moment."""
        if database.is_spoiled(error):
            with contextlib.suppress(OSError):
                database.marker(self._path).touch()

    def _tell(self, call: Callable[[], None]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # The loop may be closed by now.
            self._loop.call_soon_threadsafe(call)

    def _committed(self, batch: Sequence[Change], blobs: tuple[int, int]) -> None:
        self._committed_blobs = blobs
        for change in batch:
            self._pending_blobs = self._pending_blobs[0] - change.count, self._pending_blobs[1] - change.size
            if self._pending.get(change.key) is change.row:
                del self._pending[change.key]


def _columns(descriptor: Descriptor) -> tuple[str, str, int | None]:
    return str(descriptor.digest), descriptor.media_type, descriptor.size


def _descriptor(digest: object, media_type: object, size: object) -> Descriptor:
    return Descriptor(Digest.parse(str(digest)), str(media_type), size if isinstance(size, int) else None)
