"""A cache folder with very many entries, made directly: files and index, without pulling.

The files have made-up digests and hold nothing but their length (they are sparse): right for what start-up, lookup,
lists and eviction do, which read no content, and wrong for everything that does. Larger than what is kept in memory,
so that no lookup hashes them; the scrub has to be off.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.store.index.database import connect

PER_REPOSITORY: Final = 50
MANIFESTS: Final = 4
"""Of the entries of a repository."""
_SMALLEST: Final = 100 * 1024
_SPREAD: Final = 4 * 1024 * 1024
_DAY: Final = 86_400.0
_CHUNK: Final = 20_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One blob or manifest; `used_at` in seconds since the epoch."""

    number: int
    digest: str
    size: int
    manifest: bool
    used_at: float

    @property
    def repository(self) -> str:
        return f"made/up{self.number // PER_REPOSITORY:06}"

    @property
    def path(self) -> str:
        """What a client asks for."""
        return f"/v2/{self.repository}/blobs/{self.digest}"


def entry(number: int, now: float) -> Entry:
    """The entry of this number: always the same but for its last use, which is within the last 90 days."""
    noise = hashlib.sha256(str(number).encode())
    random = int.from_bytes(noise.digest()[:8], "big")
    used_at = now - _DAY - random % (89 * 86_400)
    manifest = number % PER_REPOSITORY < MANIFESTS
    return Entry(number, f"sha256:{noise.hexdigest()}", _SMALLEST + random % _SPREAD, manifest, used_at)


def fabricate(directory: Path, count: int) -> int:
    """Make the folder; how many bytes it says it holds. Blocking."""
    now = time.time()
    for number in range(256):
        (directory / "blobs" / "sha256" / f"{number:02x}").mkdir(parents=True)
    with closing(connect(directory / "index.sqlite")) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for start in range(0, count, _CHUNK):
            entries = [entry(number, now) for number in range(start, min(start + _CHUNK, count))]
            _write_files(directory, entries)
            _write_rows(connection, entries, now)
        (total,) = connection.execute("SELECT bytes FROM totals WHERE name = 'blobs'").fetchone()
    return int(total)


def _write_files(directory: Path, entries: list[Entry]) -> None:
    for each in entries:
        path = directory / "blobs" / "sha256" / each.digest[7:9] / each.digest[7:]
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        os.ftruncate(descriptor, each.size)
        os.close(descriptor)


def _write_rows(connection: sqlite3.Connection, entries: list[Entry], now: float) -> None:
    connection.execute("BEGIN")
    for table, rows in (
        ("blobs (digest, size, manifest, stored_at, used_at)", _blobs(entries)),
        ("links (repository, digest, media_type, size, held, seen_at)", _links(entries, now)),
        ("tags (repository, tag, accept, checked_at, digest, media_type, size)", _tags(entries, now)),
        ("visibility (repository, public, checked_at)", _visibility(entries, now)),
    ):
        marks = ", ".join("?" * (table.count(",") + 1))
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
    connection.execute("COMMIT")


def _blobs(entries: list[Entry]) -> Iterator[tuple[object, ...]]:
    return ((each.digest, each.size, int(each.manifest), each.used_at, each.used_at) for each in entries)


def _links(entries: list[Entry], now: float) -> Iterator[tuple[object, ...]]:
    return ((_stored(each), each.digest, _media_type(each), each.size, 1, now) for each in entries)


def _tags(entries: list[Entry], now: float) -> Iterator[tuple[object, ...]]:
    firsts = (each for each in entries if each.number % PER_REPOSITORY == 0)
    return ((_stored(each), "latest", "", now, each.digest, _media_type(each), each.size) for each in firsts)


def _visibility(entries: list[Entry], now: float) -> Iterator[tuple[object, ...]]:
    return ((_stored(each), 1, now) for each in entries if each.number % PER_REPOSITORY == 0)


def _stored(each: Entry) -> str:
    return f"docker.io/{each.repository}"


def _media_type(each: Entry) -> str:
    return "application/vnd.oci.image.manifest.v1+json" if each.manifest else "application/octet-stream"
