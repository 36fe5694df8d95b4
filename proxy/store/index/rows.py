"""The rows of the index, each by its table and key: how one is read, written and removed.

The tables themselves stand in `database`. A write is an upsert, since only those run the triggers that keep the totals.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Key = tuple[str, ...]
"""The table, then its key columns."""
Row = tuple[object, ...]
"""The other columns."""

GONE: Final[Row] = ()
"""A row that was removed."""


@dataclass(frozen=True, slots=True)
class Change:
    """A row to write, or to remove; `count` and `size` are what that adds to the blobs and to their bytes."""

    key: Key
    row: Row
    count: int = 0
    size: int = 0


_COLUMNS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
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
    "links": (("repository", "digest"), ("media_type", "size", "held", "seen_at")),
    "visibility": (("repository",), ("public", "checked_at")),
    "blobs": (("digest",), ("size", "manifest", "stored_at", "used_at")),
    "history": (("repository", "tag", "digest"), ("first_seen", "last_seen")),
    "vanished": (("repository", "tag"), ("since", "reason")),
    "state": (("name",), ("value",)),
}
"""The key of each table, and the rest of its columns."""

_KEPT: Final = {
    "history": {"first_seen": "MIN(first_seen, excluded.first_seen)"},
    "blobs": {"manifest": "MAX(manifest, excluded.manifest)"},
}
"""Columns of a row that is there already which do not just take the new value."""


def _where(keys: Sequence[str]) -> str:
    return " AND ".join(f"{key} = ?" for key in keys)


def _upsert(table: str, keys: tuple[str, ...], values: tuple[str, ...]) -> str:
    changed = ", ".join(f"{each} = {_KEPT.get(table, {}).get(each, f'excluded.{each}')}" for each in values)
    columns, places = ", ".join(keys + values), ", ".join("?" * len(keys + values))
    return f"INSERT INTO {table} ({columns}) VALUES ({places}) ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changed}"


_SELECT: Final = {
    table: f"SELECT {', '.join(values)} FROM {table} WHERE {_where(keys)}" for table, (keys, values) in _COLUMNS.items()
}
_DELETE: Final = {table: f"DELETE FROM {table} WHERE {_where(keys)}" for table, (keys, _) in _COLUMNS.items()}
_UPSERT: Final = {table: _upsert(table, keys, values) for table, (keys, values) in _COLUMNS.items()}


def read(connection: sqlite3.Connection, key: Key) -> Row | None:
    """The row; None if there is none. Raises sqlite3.Error."""
    row: Row | None = connection.execute(_SELECT[key[0]], key[1:]).fetchone()
    return row


def write(connection: sqlite3.Connection, change: Change) -> None:
    """Write or remove a row. Raises sqlite3.Error, and what a value that no column can hold raises."""
    table = change.key[0]
    if change.row:
        connection.execute(_UPSERT[table], (*change.key[1:], *change.row))
    else:
        connection.execute(_DELETE[table], change.key[1:])
