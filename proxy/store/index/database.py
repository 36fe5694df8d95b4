"""The database file of the index: its tables, how it is opened, and what happens to one that cannot be used.

A file of the version before is brought up to date in place. Whatever else is no database of ours - garbage, a newer
version, one that was found to be malformed while it was in use - is set aside under another name, never removed, and a
new one is begun.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

VERSION: Final = 3
_PREVIOUS_VERSION: Final = 2
_BUSY_SECONDS: Final = 5.0
_SPOILED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS tags (
    repository TEXT, tag TEXT, accept TEXT, checked_at REAL, source TEXT,
    digest TEXT, media_type TEXT, size INTEGER,
    previous_digest TEXT, previous_media_type TEXT, previous_size INTEGER,
    PRIMARY KEY (repository, tag, accept)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS links (
    repository TEXT, digest TEXT, media_type TEXT, size INTEGER, held INTEGER, seen_at REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS links_by_digest ON links (digest);
CREATE TABLE IF NOT EXISTS visibility (
    repository TEXT PRIMARY KEY, public INTEGER, checked_at REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blobs (
    digest TEXT PRIMARY KEY, size INTEGER, manifest INTEGER, stored_at REAL, used_at REAL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS blobs_by_use ON blobs (manifest, used_at, size);
CREATE TABLE IF NOT EXISTS history (
    repository TEXT, tag TEXT, digest TEXT, first_seen REAL, last_seen REAL,
    PRIMARY KEY (repository, tag, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS vanished (
    repository TEXT, tag TEXT, since REAL, reason TEXT, PRIMARY KEY (repository, tag)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pins (repository TEXT PRIMARY KEY, pinned_at REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pulls (
    at REAL, upstream TEXT, account TEXT, repository TEXT, reference TEXT,
    client TEXT, user TEXT, agent TEXT, why TEXT);
CREATE INDEX IF NOT EXISTS pulls_by_time ON pulls (at);
CREATE TABLE IF NOT EXISTS observations (
    at REAL, upstream TEXT, account TEXT,
    allowed INTEGER, remaining INTEGER, window INTEGER, source TEXT, asked_by TEXT);
CREATE INDEX IF NOT EXISTS observations_by_time ON observations (at);
CREATE TABLE IF NOT EXISTS served (
    hour INTEGER, dimension TEXT, name TEXT, answers INTEGER, bytes INTEGER,
    PRIMARY KEY (hour, dimension, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (at REAL, upstream TEXT, kind TEXT, text TEXT);
CREATE INDEX IF NOT EXISTS events_by_time ON events (at);
CREATE TABLE IF NOT EXISTS totals (name TEXT PRIMARY KEY, count INTEGER, bytes INTEGER) WITHOUT ROWID;
INSERT OR IGNORE INTO totals VALUES ('blobs', 0, 0);
CREATE TRIGGER IF NOT EXISTS blob_added AFTER INSERT ON blobs BEGIN
    UPDATE totals SET count = count + 1, bytes = bytes + new.size WHERE name = 'blobs'; END;
CREATE TRIGGER IF NOT EXISTS blob_removed AFTER DELETE ON blobs BEGIN
    UPDATE totals SET count = count - 1, bytes = bytes - old.size WHERE name = 'blobs'; END;
CREATE TRIGGER IF NOT EXISTS blob_resized AFTER UPDATE OF size ON blobs WHEN old.size != new.size BEGIN
    UPDATE totals SET bytes = bytes + new.size - old.size WHERE name = 'blobs'; END;
PRAGMA user_version = {VERSION};
"""
"""Totals are kept by triggers, so that nothing has to be read through to know them at start. Triggers run for
`INSERT ... ON CONFLICT DO UPDATE` but not for the removal in `INSERT OR REPLACE`: blobs are written with the former.

`vanished` is by tag; the empty tag is the repository as a whole. Times are seconds since the epoch.
"""

_TABLES: Final = frozenset(
    {
        *("tags", "links", "visibility", "blobs", "history", "vanished", "pins", "state", "totals"),
        *("pulls", "observations", "served", "events"),
    }
)
"""`pulls`, `observations`, `served` and `events` are the books of `ledger`."""

_UPGRADE: Final = """
ALTER TABLE links ADD COLUMN seen_at REAL NOT NULL DEFAULT 0;
ALTER TABLE blobs RENAME TO blobs_before;
"""
_UPGRADED: Final = """
UPDATE links SET seen_at = :now;
INSERT INTO blobs SELECT digest, size,
    digest IN (SELECT digest FROM links WHERE held = 1 AND media_type != 'application/octet-stream'), :now, :now
    FROM blobs_before;
INSERT INTO history SELECT repository, tag, digest, checked_at, checked_at FROM tags WHERE accept = '';
DROP TABLE blobs_before;
"""


def connect(path: Path) -> sqlite3.Connection:
    """The database, made or brought up to date if need be. Blocking. Raises sqlite3.Error.

    sqlite3.OperationalError is no fault of the file: it cannot be reached, is locked, or the disk is full.
    """
    if marker(path).exists():
        raise sqlite3.DatabaseError("it was found to be malformed while it was in use")
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def read_only(path: Path) -> sqlite3.Connection:
    """Another connection to a database that is open. Blocking. Raises sqlite3.Error."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
    connection.execute("PRAGMA query_only = ON")
    return connection


def is_spoiled(error: sqlite3.Error) -> bool:
    """Whether the file's content is the matter."""
    return getattr(error, "sqlite_errorcode", None) in _SPOILED


def marker(path: Path) -> Path:
    """A file that says: this database was malformed while it was in use, so begin a new one."""
    return path.with_name(f"{path.name}.spoiled")


def set_aside(path: Path) -> Path:
    """Give the file another name, which is returned. Blocking. Raises OSError."""
    number = 1
    while (aside := path.with_name(f"{path.name}.unusable-{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()
    path.replace(aside)
    marker(path).unlink(missing_ok=True)
    return aside


def totals(connection: sqlite3.Connection) -> tuple[int, int]:
    """How many blobs there are, and their bytes."""
    count, size = connection.execute("SELECT count, bytes FROM totals WHERE name = 'blobs'").fetchone()
    return count, size


def _prepare(connection: sqlite3.Connection) -> None:
    if _version(connection) == VERSION and _is_complete(connection):
        return
    connection.execute("BEGIN IMMEDIATE")  # Another process may be about to do the same.
    try:
        version = _version(connection)
        if version not in (0, _PREVIOUS_VERSION, VERSION):
            raise sqlite3.DatabaseError(f"it has version {version}, this program reads {VERSION}")
        _run(connection, _UPGRADE if version == _PREVIOUS_VERSION else "")
        _run(connection, _SCHEMA)
        if version == _PREVIOUS_VERSION:
            _run(connection, _UPGRADED, now=time.time())
            log.info("the index was brought from version %d to %d", version, VERSION)
    except BaseException as error:
        connection.execute("ROLLBACK")
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
            raise sqlite3.DatabaseError(f"its tables are others than ours: {error}") from error
        raise
    connection.execute("COMMIT")


def _is_complete(connection: sqlite3.Connection) -> bool:
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return found >= _TABLES and connection.execute("SELECT COUNT(*) FROM totals").fetchone()[0] > 0


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _run(connection: sqlite3.Connection, script: str, **values: float) -> None:
    """`executescript` would commit first; a statement of a trigger holds a semicolon too."""
    statement = ""
    for piece in script.split(";"):
        statement += piece + ";"
        if sqlite3.complete_statement(statement):
            if statement.strip(" \n;"):
                used = {name: value for name, value in values.items() if f":{name}" in statement}
                connection.execute(statement, used)
            statement = ""
