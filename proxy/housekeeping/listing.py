"""The repositories that the store holds something of, and what upstream does not give any more: page by page.

All functions run in a thread of the index.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Final

from proxy.oci.images import familiar
from proxy.oci.names import DOCKER_HUB

MAX_PAGE: Final = 1000
SHOWN_TAGS: Final = 20
"""Tags that a listed repository names, those last asked for first; their number is told in any case."""

_LOOKED_AT: Final = 10
"""How many repositories are looked at for one that is listed, before a page ends early."""
_WILDCARDS: Final = frozenset("*?[")


def _wanted(name: str) -> str:
    """Whether the pattern matches this column, in full or as people write it."""
    return f"""(:pattern = '' OR {name} GLOB :pattern OR CASE
    WHEN substr({name}, 1, length(:official)) = :official AND instr(substr({name}, length(:official) + 1), '/') = 0
        THEN substr({name}, length(:official) + 1)
    WHEN substr({name}, 1, length(:default)) = :default THEN substr({name}, length(:default) + 1)
    ELSE {name} END GLOB :pattern)"""


_NAMES: Final = f"""
WITH RECURSIVE named(name) AS (
    VALUES (:after)
    UNION ALL
    SELECT (SELECT MIN(next) FROM (
        SELECT MIN(repository) AS next FROM links WHERE repository > named.name
        UNION ALL SELECT MIN(repository) FROM pins WHERE repository > named.name))
    FROM named WHERE named.name IS NOT NULL)
SELECT name FROM named WHERE name > :after AND {_wanted("name")}
"""
"""Every name once, by steps from one to the next, whatever the number of rows that each has."""

_SHARED: Final = """
EXISTS (SELECT 1 FROM links AS others WHERE others.digest = links.digest AND others.repository != links.repository)
"""
_HELD: Final = f"""
SELECT COUNT(*), COALESCE(SUM(blobs.size), 0), COALESCE(SUM(CASE WHEN {_SHARED} THEN blobs.size END), 0),
    COALESCE(MAX(CASE WHEN blobs.manifest THEN blobs.used_at END), MAX(blobs.used_at))
FROM links JOIN blobs ON blobs.digest = links.digest WHERE links.repository = ?
"""
"""The last use is that of manifests: layers may have been used through another repository."""

_POINTED_TO: Final = "FROM tags WHERE tags.repository = vanished.repository AND tags.tag = vanished.tag"
_VANISHED: Final = f"""
SELECT repository, tag, since, reason FROM vanished
WHERE (repository, tag) > (:repository, :tag) AND {_wanted("repository")}
    AND EXISTS (SELECT 1 FROM links JOIN blobs ON blobs.digest = links.digest AND blobs.manifest
        WHERE links.repository = vanished.repository AND (vanished.tag = '' OR links.digest IN (
            SELECT digest {_POINTED_TO} UNION ALL SELECT previous_digest {_POINTED_TO})))
ORDER BY repository, tag LIMIT :limit
"""

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """At most `limit` entries after the one called `after`.

    Where `match` has `*`, `?` or `[...]` it is a pattern for whole names, else a part of them. `default` is the
    registry of names without one.
    """

    after: str
    limit: int
    match: str
    default: str


def repositories(connection: sqlite3.Connection, page: Page) -> Document:
    """Those that hold something or are pinned, by name."""
    found: list[Document] = []
    for number, (name,) in enumerate(connection.execute(_NAMES, _pattern(page) | {"after": page.after}), start=1):
        entry = repository(connection, name, page.default)
        if entry["blobs"] or entry["pinned_at"] is not None:
            found.append(entry)
        if len(found) == page.limit or number == page.limit * _LOOKED_AT:
            return {"repositories": found, "next": name}
    return {"repositories": found, "next": None}


def repository(connection: sqlite3.Connection, name: str, default: str) -> Document:
    """What the store holds of one; sizes in bytes."""
    blobs, size, shared, used_at = connection.execute(_HELD, (name,)).fetchone()
    (tag_count,) = connection.execute(
        "SELECT COUNT(*) FROM tags WHERE repository = ? AND accept = ''", (name,)
    ).fetchone()
    newest = "SELECT tag FROM tags WHERE repository = ? AND accept = '' ORDER BY checked_at DESC, tag LIMIT ?"
    vanished = dict(connection.execute("SELECT tag, since FROM vanished WHERE repository = ?", (name,)).fetchall())
    return {
        "repository": name,
        "name": familiar(name, default),
        "tags": [tag for (tag,) in connection.execute(newest, (name, SHOWN_TAGS))],
        "tag_count": tag_count,
        "blobs": blobs,
        "bytes": size,
        "shared_bytes": shared,
        "used_at": used_at,
        "pinned_at": pinned_at(connection, name),
        "vanished_at": vanished.pop("", None),
        "vanished_tags": len(vanished),
    }


def vanished(connection: sqlite3.Connection, page: Page) -> Document:
    """Tags, and repositories as a whole (tag null), that upstream denies and we still serve."""
    name, _, tag = page.after.rpartition(":")
    after = {"repository": name, "tag": tag, "limit": page.limit}
    rows = connection.execute(_VANISHED, _pattern(page) | after).fetchall()
    found = [
        {
            "repository": name,
            "name": familiar(name, page.default),
            "tag": tag or None,
            "vanished_at": since,
            "reason": reason,
        }
        for name, tag, since, reason in rows
    ]
    return {"vanished": found, "next": f"{rows[-1][0]}:{rows[-1][1]}" if len(rows) == page.limit else None}


def pinned(connection: sqlite3.Connection, page: Page) -> Document:
    """The pinned repositories, by name."""
    question = "SELECT repository, pinned_at FROM pins WHERE repository > ? ORDER BY repository LIMIT ?"
    rows = connection.execute(question, (page.after, page.limit)).fetchall()
    found = [{"repository": name, "name": familiar(name, page.default), "pinned_at": since} for name, since in rows]
    return {"pins": found, "next": rows[-1][0] if len(rows) == page.limit else None}


def pinned_at(connection: sqlite3.Connection, name: str) -> float | None:
    """Since when a repository is pinned."""
    row = connection.execute("SELECT pinned_at FROM pins WHERE repository = ?", (name,)).fetchone()
    return None if row is None else row[0]


def _pattern(page: Page) -> dict[str, Any]:
    default = f"{page.default}/"
    return {
        "pattern": page.match if not page.match or _WILDCARDS & set(page.match) else f"*{page.match}*",
        "default": default,
        "official": f"{default}library/" if page.default == DOCKER_HUB else default,
    }
