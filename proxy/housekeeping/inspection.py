"""What is known of one repository, of one image, and of what a tag was before.

All functions run in a thread of the index.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from proxy.housekeeping.listing import pinned_at, repository
from proxy.housekeeping.parts import Parts
from proxy.oci.images import familiar
from proxy.oci.manifests import DOCKER_LIST, OCI_INDEX, Descriptor, children
from proxy.oci.names import Digest, Repository, Tag
from proxy.policy.freshness import lasts

SHOWN_UNTAGGED: Final = 100
"""Manifests without a tag that are told of a repository, those last used first."""

_MAX_INDEXES: Final = 1000
_TAGS: Final = """
SELECT tag, checked_at, source, digest, media_type, size, previous_digest FROM tags
WHERE repository = ? AND accept = ''"""
_UNTAGGED: Final = """
SELECT links.digest, links.media_type, blobs.size, blobs.used_at FROM links
JOIN blobs ON blobs.digest = links.digest AND blobs.manifest
WHERE links.repository = ? AND links.held = 1 AND links.digest NOT IN (
    SELECT digest FROM tags WHERE repository = links.repository) ORDER BY blobs.used_at DESC, links.digest"""
_INDEXES: Final = """
SELECT links.digest FROM links JOIN blobs ON blobs.digest = links.digest AND blobs.manifest
WHERE links.repository = ? AND links.media_type IN (?, ?) LIMIT ?"""

_HISTORY: Final = """
SELECT history.tag, history.digest, first_seen, last_seen, tags.digest, blobs.size FROM history
LEFT JOIN tags ON tags.repository = history.repository AND tags.tag = history.tag AND tags.accept = ''
LEFT JOIN blobs ON blobs.digest = history.digest
WHERE history.repository = ? AND (last_seen < ? OR last_seen = ? AND (history.tag > ? OR
    history.tag = ? AND history.digest > ?))"""

Document = dict[str, Any]
_Row = tuple[Any, ...]


class NotKnown(Exception):
    """Nothing is known of that name. The message is for people."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for: a repository or, with `what`, one image of it.

    `default` is the registry of names without one, `window` the seconds for which tags of this repository are fresh.
    """

    repository: Repository
    what: Tag | Digest | None
    default: str
    window: float

    @property
    def full(self) -> str:
        """The name of the repository, as it is stored."""
        return str(self.repository)

    @property
    def name(self) -> str:
        """The name of the repository, as people write it."""
        return familiar(self.full, self.default)

    def __str__(self) -> str:
        if self.what is None:
            return self.name
        return f"{self.name}{':' if isinstance(self.what, Tag) else '@'}{self.what}"


def show_repository(connection: sqlite3.Connection, parts: Parts, asked: Asked, after: str, limit: int) -> Document:
    """The repository, a page of its tags by name, and its manifests without a tag. Raises NotKnown."""
    document = repository(connection, asked.full, asked.default)
    if not document["blobs"] and not document["tag_count"] and document["pinned_at"] is None:
        raise NotKnown(f"nothing of {asked} is cached")
    seen = connection.execute("SELECT public FROM visibility WHERE repository = ?", (asked.full,)).fetchone()
    document["public"] = bool(seen[0]) if seen else None
    rows = connection.execute(f"{_TAGS} AND tag > ? ORDER BY tag LIMIT ?", (asked.full, after, limit)).fetchall()
    document["tags"] = [_tag(connection, parts, asked, row) for row in rows]
    document["untagged"] = [] if after else _untagged(connection, parts, asked.full)
    document["next"] = rows[-1][0] if len(rows) == limit else None
    return document


def show_image(connection: sqlite3.Connection, parts: Parts, asked: Asked) -> Document:
    """One image, with all its parts as far as they are known. Raises NotKnown."""
    document: Document = {"repository": asked.full, "name": asked.name}
    if isinstance(asked.what, Tag):
        row = connection.execute(f"{_TAGS} AND tag = ?", (asked.full, asked.what.name)).fetchone()
        if row is None:
            raise no_such_tag(connection, asked)
        document |= _tag(connection, parts, asked, row)
        target = Descriptor(Digest.parse(row[3]), row[4], row[5])
    else:
        target = _linked(connection, asked)
        document["digest"] = str(target.digest)
    document["first_seen"], document["last_seen"] = _seen(connection, asked, str(target.digest))
    document["pinned_at"] = pinned_at(connection, asked.full)
    document["image"] = parts.tell(connection, asked.full, target, default=asked.default)
    return document


def history(connection: sqlite3.Connection, asked: Asked, after: str, limit: int) -> Document:
    """What the tags of a repository were (or one tag, or which were this digest): newest first. Raises NotKnown."""
    moment, _, rest = after.partition(" ")
    tag, _, digest = rest.partition(" ")
    before = float(moment) if moment else float("inf")
    condition, value = _chosen(asked.what)
    rows = connection.execute(
        f"{_HISTORY} AND {condition} ORDER BY last_seen DESC, history.tag, history.digest LIMIT ?",
        (asked.full, before, before, tag, tag, digest, value, limit),
    ).fetchall()
    if not rows and not after:
        raise NotKnown(f"nothing is known of {asked}: it was never asked for here")
    entries = [
        {
            "tag": row[0],
            "digest": row[1],
            "first_seen": row[2],
            "last_seen": row[3],
            "current": row[1] == row[4],
            "stored": row[5] is not None,
        }
        for row in rows
    ]
    last = f"{rows[-1][3]!r} {rows[-1][0]} {rows[-1][1]}" if len(rows) == limit else None
    return {"repository": asked.full, "name": asked.name, "history": entries, "next": last}


def no_such_tag(connection: sqlite3.Connection, asked: Asked) -> NotKnown:
    """What to say of a tag that is not stored."""
    question = "SELECT tag FROM tags WHERE repository = ? AND accept = '' ORDER BY checked_at DESC LIMIT 6"
    tags = [each for (each,) in connection.execute(question, (asked.full,))]
    if not tags:
        return NotKnown(f"nothing of {asked.name} is cached")
    others = ", ".join(tags[:5]) + (", ..." if len(tags) > 5 else "")
    return NotKnown(f"{asked.name} has no tag {asked.what} here; it has {others}")


def _chosen(what: Tag | Digest | None) -> tuple[str, str]:
    if what is None:
        return "? = ''", ""
    return ("history.tag = ?" if isinstance(what, Tag) else "history.digest = ?"), str(what)


def _tag(connection: sqlite3.Connection, parts: Parts, asked: Asked, row: _Row) -> Document:
    tag, checked_at, source, digest, media_type, _, previous = row
    stored = connection.execute("SELECT used_at FROM blobs WHERE digest = ?", (digest,)).fetchone()
    gone = "SELECT since FROM vanished WHERE repository = ? AND tag IN (?, '') ORDER BY since"
    vanished = connection.execute(gone, (asked.full, tag)).fetchone()
    return {
        "tag": tag,
        "digest": digest,
        "media_type": media_type,
        "previous": previous,
        "checked_at": checked_at,
        "fresh_until": checked_at + lasts(source, asked.window),
        "source": source,
        "stored": stored is not None,
        "bytes": _size(connection, parts.reached(connection, [digest])),
        "used_at": stored[0] if stored else None,
        "vanished_at": vanished[0] if vanished else None,
    }


def _size(connection: sqlite3.Connection, digests: Iterable[str]) -> int:
    """The bytes of those that are on disk."""
    question = "SELECT size FROM blobs WHERE digest = ?"
    rows = (connection.execute(question, (digest,)).fetchone() for digest in digests)
    return sum(row[0] for row in rows if row)


def _untagged(connection: sqlite3.Connection, parts: Parts, name: str) -> list[Document]:
    """Manifests that no tag points to, and no index names: those that were pulled by digest, or whose tag moved on."""
    indexes = connection.execute(_INDEXES, (name, DOCKER_LIST, OCI_INDEX, _MAX_INDEXES)).fetchall()
    named = {str(child.digest) for (index,) in indexes for child in children(parts.body(Digest.parse(index)))}
    found: list[Document] = []
    for digest, media_type, size, used_at in connection.execute(_UNTAGGED, (name,)):
        if digest not in named:
            found.append({"digest": digest, "media_type": media_type, "size": size, "used_at": used_at})
        if len(found) == SHOWN_UNTAGGED:
            break
    return found


def _linked(connection: sqlite3.Connection, asked: Asked) -> Descriptor:
    """Raises NotKnown."""
    question = "SELECT media_type, size FROM links WHERE repository = ? AND digest = ?"
    row = connection.execute(question, (asked.full, str(asked.what))).fetchone()
    if row is None or not isinstance(asked.what, Digest):
        raise NotKnown(f"{asked.name} is not known to have {asked.what}")
    return Descriptor(asked.what, row[0], row[1])


def _seen(connection: sqlite3.Connection, asked: Asked, digest: str) -> tuple[float | None, float | None]:
    """When this digest was first and last what the tag points to or, asked for by digest, any tag."""
    question = "SELECT MIN(first_seen), MAX(last_seen) FROM history WHERE repository = ? AND digest = ?"
    values = [asked.full, digest]
    if isinstance(asked.what, Tag):
        question, values = f"{question} AND tag = ?", [*values, asked.what.name]
    first, last = connection.execute(question, values).fetchone()
    return first, last
