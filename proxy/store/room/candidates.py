"""The stored blobs in the order in which they would be evicted, read from the index in pieces."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from functools import partial
from typing import Final

from proxy.oci.names import Digest
from proxy.policy.eviction import Candidate
from proxy.store.index import Index

PIECE_ROWS: Final = 256
"""Judged and forgotten without giving way to others: about a millisecond."""

_Moments = tuple[float, float]

_PINNED: Final = (
    "EXISTS (SELECT 1 FROM links JOIN pins ON pins.repository = links.repository WHERE links.digest = blobs.digest)"
)
_AFTER: Final = "manifest = ? AND (used_at, size, digest) > (?, ?, ?)"
_ORDER: Final = "ORDER BY used_at, size, digest LIMIT ?"
_ALL: Final = f"SELECT digest, size, used_at, {_PINNED} FROM blobs WHERE {_AFTER} {_ORDER}"
_MOVABLE: Final = (
    f"SELECT digest, size, used_at, 0 FROM blobs WHERE {_AFTER}"
    f" AND NOT (used_at > ? AND used_at < ?) AND NOT {_PINNED} {_ORDER}"
)


async def candidates(
    index: Index, *, manifest: bool, without: _Moments | None = None
) -> AsyncGenerator[list[Candidate], None]:
    """All blobs, or all manifests, by last use; nobody knows here whether one is in use. Raises sqlite3.Error.

    With two moments (since the epoch), `without` what was used between them, and without what is pinned: the database
    is quick to pass over those.
    """
    after = (float("-inf"), 0, "")
    while piece := await index.query(partial(_select, manifest, after, without)):
        yield piece
        after = (piece[-1].used_at, piece[-1].size, str(piece[-1].digest))


def _select(
    manifest: bool, after: tuple[float, int, str], without: _Moments | None, connection: sqlite3.Connection
) -> list[Candidate]:
    """In a thread."""
    query = _ALL if without is None else _MOVABLE
    rows = connection.execute(query, (manifest, *after, *(without or ()), PIECE_ROWS))
    return [Candidate(Digest.parse(row[0]), row[1], row[2], manifest, bool(row[3])) for row in rows]
