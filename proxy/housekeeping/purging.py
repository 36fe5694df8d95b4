"""What a purge removes: looked up in a thread, then forgotten by the index, then removed from disk.

Between the look and the act something may come that needs a part of what goes. That costs it a free HEAD or one more
fetch, and is never answered wrongly.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.housekeeping.inspection import Asked, NotKnown, no_such_tag
from proxy.housekeeping.parts import Parts
from proxy.oci.names import Tag

MAX_ITEMS: Final = 1000
"""Blobs that are named one by one; all are counted."""
STEP_LINKS: Final = 5000
"""What one step forgets of a repository."""

_SIZE: Final = "SELECT size, manifest, used_at FROM blobs WHERE digest = ?"
_PINNED: Final = (
    "(EXISTS (SELECT 1 FROM pins) AND EXISTS ("
    "SELECT 1 FROM links JOIN pins ON pins.repository = links.repository WHERE links.digest = blobs.digest))"
)
"""Where nothing is pinned, the links of each blob need not be looked at: 30 times as fast."""

_UNUSED: Final = f"FROM blobs WHERE manifest = ? AND used_at < ? AND NOT {_PINNED}"

Document = dict[str, Any]


@dataclass(slots=True)
class Purge:
    """What goes, or went: `digests` are forgotten by the repository, and those that nobody else holds are removed.

    What is `kept` is held by other repositories, what is `needed` by other images of the same one.
    """

    digests: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    removed_blobs: int = 0
    removed_bytes: int = 0
    kept_blobs: int = 0
    kept_bytes: int = 0
    needed_blobs: int = 0
    needed_bytes: int = 0
    items: list[Document] = field(default_factory=list)
    complete: bool = True

    def add(self, digest: str, row: tuple[int, int, float], sharers: int) -> None:
        """Count a blob that is on disk; with `sharers`, other repositories that hold it, it stays there."""
        size, manifest, used_at = row
        if sharers:
            self.kept_blobs += 1
            self.kept_bytes += size
        else:
            self.removed_blobs += 1
            self.removed_bytes += size
        if len(self.items) < MAX_ITEMS:
            entry = {"digest": digest, "size": size, "manifest": bool(manifest), "used_at": used_at}
            self.items.append(entry | {"removed": not sharers, "shared_count": sharers})

    def document(self) -> Document:
        """For the admin API."""
        return {
            "tags": self.tags,
            "removed": {"blobs": self.removed_blobs, "bytes": self.removed_bytes},
            "kept": {"blobs": self.kept_blobs, "bytes": self.kept_bytes},
            "needed": {"blobs": self.needed_blobs, "bytes": self.needed_bytes},
            "items": self.items,
            "complete": self.complete,
        }


def plan_image(connection: sqlite3.Connection, parts: Parts, asked: Asked) -> Purge:
    """What goes with a tag or a digest. Raises NotKnown."""
    purge = Purge()
    if isinstance(asked.what, Tag):
        purge.tags = [asked.what.name]
        wanted = _pointed_to(connection, asked.full, "tag = ?", asked.what.name)
        if not wanted:
            raise no_such_tag(connection, asked)
        certain: Set[str] = frozenset()
    else:
        question = "SELECT DISTINCT tag FROM tags WHERE repository = ? AND digest = ?"
        purge.tags = [tag for (tag,) in connection.execute(question, (asked.full, str(asked.what)))]
        wanted = {str(asked.what)}
        known = "SELECT 1 FROM links WHERE repository = ? AND digest = ?"
        if connection.execute(known, (asked.full, str(asked.what))).fetchone() is None:
            raise NotKnown(f"{asked.name} is not known to have {asked.what}")
        certain = wanted
    reached = parts.reached(connection, wanted)
    needed = parts.reached(connection, _others(connection, asked.full, purge.tags, reached), certain)
    purge.digests = sorted(reached - needed)
    _count(connection, purge, asked.full, purge.digests)
    for digest in reached & needed:
        row = connection.execute(_SIZE, (digest,)).fetchone()
        if row is not None:
            purge.needed_blobs += 1
            purge.needed_bytes += row[0]
    return purge


def plan_repository(connection: sqlite3.Connection, asked: Asked) -> Purge:
    """What goes with a repository. Raises NotKnown."""
    links = connection.execute("SELECT digest FROM links WHERE repository = ?", (asked.full,))
    purge = _known(connection, asked)
    _count(connection, purge, asked.full, (digest for (digest,) in links))
    return purge


def plan_unused(connection: sqlite3.Connection, before: float) -> Purge:
    """What was last used before this moment and is not pinned; nobody knows here whether it is in use."""
    purge = Purge()
    for manifest in (0, 1):
        count, size = connection.execute(
            f"SELECT COUNT(*), COALESCE(SUM(size), 0) {_UNUSED}", (manifest, before)
        ).fetchone()
        purge.removed_blobs += count
        purge.removed_bytes += size
        rows = f"SELECT digest, size, used_at {_UNUSED} ORDER BY used_at LIMIT ?"
        for digest, each, used_at in connection.execute(rows, (manifest, before, MAX_ITEMS - len(purge.items))):
            entry = {"digest": digest, "size": each, "manifest": bool(manifest), "used_at": used_at}
            purge.items.append(entry | {"removed": True, "shared_count": 0})
    return purge


def unused(
    connection: sqlite3.Connection, before: float, manifest: bool, after: tuple[float, str], limit: int
) -> list[tuple[str, int, float]]:
    """Digest, size and last use of a piece of them, from those last used longest ago on."""
    question = f"SELECT digest, size, used_at {_UNUSED} AND (used_at, digest) > (?, ?) ORDER BY used_at, digest LIMIT ?"
    return connection.execute(question, (manifest, before, *after, limit)).fetchall()


def forget_image(connection: sqlite3.Connection, asked: Asked, digests: Sequence[str]) -> list[str]:
    """Let the repository forget these; returns those that no repository holds any more. In the writer's thread."""
    if isinstance(asked.what, Tag):
        for table in ("tags", "vanished"):
            connection.execute(f"DELETE FROM {table} WHERE repository = ? AND tag = ?", (asked.full, asked.what.name))
    else:
        values = (asked.full, str(asked.what))
        connection.execute("DELETE FROM tags WHERE repository = ? AND digest = ?", values)
        connection.execute(
            "UPDATE tags SET previous_digest = NULL, previous_media_type = NULL, previous_size = NULL"
            " WHERE repository = ? AND previous_digest = ?",
            values,
        )
    return _unlink(connection, asked.full, digests)


def forget_repository(connection: sqlite3.Connection, asked: Asked) -> tuple[Purge, list[str]]:
    """Forget a repository, of its links as many as go in one step; and what nobody holds any more. Raises NotKnown.

    In the writer's thread.
    """
    purge = _known(connection, asked)
    for table in ("tags", "vanished", "visibility", "history"):
        connection.execute(f"DELETE FROM {table} WHERE repository = ?", (asked.full,))
    question = "SELECT digest FROM links WHERE repository = ? LIMIT ?"
    purge.digests = [digest for (digest,) in connection.execute(question, (asked.full, STEP_LINKS))]
    _count(connection, purge, asked.full, purge.digests)
    orphans = _unlink(connection, asked.full, purge.digests)
    purge.complete = connection.execute(question, (asked.full, 1)).fetchone() is None
    return purge, orphans


def _known(connection: sqlite3.Connection, asked: Asked) -> Purge:
    """The tags of a repository. Raises NotKnown if nothing at all is known of it."""
    tags = connection.execute("SELECT DISTINCT tag FROM tags WHERE repository = ?", (asked.full,)).fetchall()
    tables = ("links", "vanished", "visibility", "history")
    known = (
        connection.execute(f"SELECT 1 FROM {each} WHERE repository = ?", (asked.full,)).fetchone() for each in tables
    )
    if not tags and not any(known):
        raise NotKnown(f"nothing is known of {asked.name}")
    return Purge(tags=[tag for (tag,) in tags][:MAX_ITEMS])


def _unlink(connection: sqlite3.Connection, name: str, digests: Sequence[str]) -> list[str]:
    rows = [(name, digest) for digest in digests]
    connection.executemany("DELETE FROM links WHERE repository = ? AND digest = ?", rows)
    return [digest for digest in digests if not _sharers(connection, digest, name)]


def _count(connection: sqlite3.Connection, purge: Purge, name: str, digests: Iterable[str]) -> None:
    """Add what is on disk."""
    for digest in digests:
        row = connection.execute(_SIZE, (digest,)).fetchone()
        if row is not None:
            purge.add(digest, row, _sharers(connection, digest, name))


def _sharers(connection: sqlite3.Connection, digest: str, name: str) -> int:
    question = "SELECT COUNT(*) FROM links WHERE digest = ? AND repository != ?"
    count: int = connection.execute(question, (digest, name)).fetchone()[0]
    return count


def _pointed_to(connection: sqlite3.Connection, name: str, condition: str, *values: str) -> set[str]:
    question = f"SELECT digest, previous_digest FROM tags WHERE repository = ? AND {condition}"
    rows = connection.execute(question, (name, *values)).fetchall()
    return {digest for row in rows for digest in row if digest is not None}


def _others(connection: sqlite3.Connection, name: str, tags: Sequence[str], going: Set[str]) -> set[str]:
    """What needs its parts: what other tags point to, and manifests that do not go."""
    gone = ", ".join("?" * len(tags))
    pointed_to = _pointed_to(connection, name, f"tag NOT IN ({gone})", *tags)
    question = (
        "SELECT links.digest FROM links JOIN blobs ON blobs.digest = links.digest AND blobs.manifest"
        " WHERE links.repository = ? AND links.held = 1"
    )
    manifests = {digest for (digest,) in connection.execute(question, (name,))}
    return pointed_to | (manifests - going)
