"""The one thread that writes to the index, so that no request waits for a commit.

What has gathered is written in one transaction; a job has one of its own, in its turn. While another process has the
database locked, writing waits. A batch that cannot be written for another reason is reported and dropped: what it held
costs upstream HEADs, never wrong answers.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

log = logging.getLogger(__name__)

_LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PAUSE_SECONDS: Final = 0.1
_LAST_ATTEMPTS: Final = 3
"""How often, in all, a locked database is waited for once we are closing."""

T = TypeVar("T")
W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """Work in a transaction of its own. `done` is called in the writer's thread."""

    work: Callable[[sqlite3.Connection], T]
    done: Callable[[T | None, BaseException | None], None]


class Writer(Generic[W]):
    """Writes what it is given, in order. `write` puts one thing into the running transaction.

    `written` is told, in this thread, what has left the queue; `failed` of every error that lost something.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        write: Callable[[sqlite3.Connection, W], None],
        written: Callable[[Sequence[W]], None],
        failed: Callable[[sqlite3.Error], None],
    ) -> None:
        self._connection = connection
        self._write = write
        self._written = written
        self._failed = failed
        self._queue: queue.SimpleQueue[W | Job[Any] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._last_attempts = _LAST_ATTEMPTS
        self._thread = threading.Thread(target=self._run, name="index-writer", daemon=True)
        self._thread.start()

    def put(self, item: W | Job[Any]) -> None:
        """Write this after all that was put before."""
        self._queue.put(item)

    def close(self) -> None:
        """Write what is left and end: within some seconds, even if the database is locked. Blocking."""
        self._closing.set()
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            batch: list[W] = []
            item = self._queue.get()
            while not (item is None or isinstance(item, Job)):
                batch.append(item)
                item = self._next()
                if item is _NOTHING:
                    break
            if batch:
                self._write_batch(batch)
            if isinstance(item, Job):
                self._do(item)
            elif item is None:
                return

    def _next(self) -> Any:
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return _NOTHING

    def _write_batch(self, batch: list[W]) -> None:
        try:
            self._transact(lambda connection: self._write_all(connection, batch))
        except sqlite3.Error as error:
            log.error("%d changes could not be written to the index: %s", len(batch), error)
            self._failed(error)
        except Exception as error:
            # A value that no column can hold: it must not take the others with it, and never this thread.
            if len(batch) == 1:
                log.error("a change could not be written to the index: %s", error)
            else:
                for each in batch:
                    self._write_batch([each])
                return
        self._written(batch)

    def _write_all(self, connection: sqlite3.Connection, batch: list[W]) -> None:
        for each in batch:
            self._write(connection, each)

    def _do(self, job: Job[Any]) -> None:
        try:
            result = self._transact(job.work)
        except Exception as error:
            if isinstance(error, sqlite3.Error):
                self._failed(error)
            job.done(None, error)
        else:
            job.done(result, None)

    def _has_no_more_time(self) -> bool:
        """Whether it was in vain long enough while we are closing; what is left then gets no patience either."""
        if not self._closing.is_set():
            return False
        self._last_attempts -= 1
        if self._last_attempts <= 0:
            self._connection.execute("PRAGMA busy_timeout = 0")
        return self._last_attempts <= 0

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    result = work(self._connection)
                    self._connection.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", None) not in _LOCKED or self._has_no_more_time():
                    raise
                time.sleep(_PAUSE_SECONDS)
            else:
                return result


_NOTHING: Final = object()
