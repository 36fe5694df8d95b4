"""What an image consists of, read from its stored manifests: they are content-addressed, so nothing else keeps it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Any, Final

from proxy.oci.images import familiar
from proxy.oci.manifests import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    children,
    config_platform,
    platforms,
)
from proxy.oci.names import Digest
from proxy.store.blobs import Blobs

MAX_PARTS: Final = 2000
"""Parts of one image that are told; more than any image has that people make."""
SHOWN_SHARERS: Final = 5

_MANIFESTS: Final = frozenset({DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST})
_INDEXES: Final = frozenset({DOCKER_LIST, OCI_INDEX})
_CONFIG_BYTES: Final = 1024 * 1024
_MAX_DEPTH: Final = 3
"""An index, its manifests, their layers."""

Document = dict[str, Any]


@dataclass(slots=True)
class _Told:
    """How many parts were told so far, and in which repository."""

    repository: str
    default: str
    count: int = 0


class Parts:
    """Reads manifests and configs from disk. Blocking: used in a thread."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def body(self, digest: Digest, most: int = MAX_MANIFEST_BYTES) -> bytes:
        """The bytes; empty for what is not there, larger than `most`, or bad."""
        try:
            with self._blobs.path(digest).open("rb") as file:
                content = file.read(most + 1)
        except OSError:
            return b""
        return content if len(content) <= most and digest.matches(content) else b""

    def reached(self, connection: sqlite3.Connection, roots: Iterable[str], past: Set[str] = frozenset()) -> set[str]:
        """The roots and everything that they name, at any depth, but nothing of `past` nor by way of it."""
        waiting = list(roots)
        found: set[str] = set()
        while waiting:
            digest = waiting.pop()
            if digest in found or digest in past:
                continue
            found.add(digest)
            if _is_manifest(connection, digest):
                waiting += [str(child.digest) for child in children(self.body(Digest.parse(digest)))]
        return found

    def tell(
        self, connection: sqlite3.Connection, repository: str, descriptor: Descriptor, *, default: str
    ) -> Document:
        """One part of an image in this repository and, of what is on disk, its own parts. `default` is the registry of
        names without one."""
        return self._tell(connection, descriptor, None, _MAX_DEPTH, _Told(repository, default))

    def _tell(
        self, connection: sqlite3.Connection, part: Descriptor, platform: str | None, depth: int, told: _Told
    ) -> Document:
        told.count += 1
        digest = str(part.digest)
        row = connection.execute("SELECT size, manifest, used_at FROM blobs WHERE digest = ?", (digest,)).fetchone()
        is_manifest = part.media_type in _MANIFESTS or (row is not None and bool(row[1]))
        document: Document = {
            "kind": _kind(part.media_type, is_manifest),
            "digest": digest,
            "media_type": part.media_type or None,
            "size": row[0] if row else part.size,
            "stored": row is not None,
            "used_at": row[2] if row else None,
            **_sharers(connection, digest, told),
        }
        if not is_manifest:
            return document
        body = self.body(part.digest) if row else b""
        named = sorted(children(body) if depth else [], key=lambda each: not _is_config(each.media_type))
        listed = platforms(body)
        document["platform"] = platform or self._platform(named)
        document["parts"] = []
        for child in named:
            if told.count >= MAX_PARTS:
                document["cut_short"] = True
                break
            document["parts"].append(self._tell(connection, child, listed.get(child.digest), depth - 1, told))
        return document

    def _platform(self, named: Iterable[Descriptor]) -> str | None:
        configs = (each for each in named if _is_config(each.media_type))
        return next((config_platform(self.body(each.digest, _CONFIG_BYTES)) for each in configs), None)


def _is_manifest(connection: sqlite3.Connection, digest: str) -> bool:
    row = connection.execute("SELECT manifest FROM blobs WHERE digest = ?", (digest,)).fetchone()
    return row is not None and bool(row[0])


def _kind(media_type: str, is_manifest: bool) -> str:
    if media_type in _INDEXES:
        return "index"
    if is_manifest:
        return "manifest"
    if "layer" in media_type or "rootfs" in media_type:
        return "layer"
    return "config" if _is_config(media_type) else "blob"


def _is_config(media_type: str) -> bool:
    return "config" in media_type or "container.image" in media_type


def _sharers(connection: sqlite3.Connection, digest: str, told: _Told) -> Document:
    """The other repositories that hold the same."""
    where = "FROM links WHERE digest = ? AND repository != ?"
    (count,) = connection.execute(f"SELECT COUNT(*) {where}", (digest, told.repository)).fetchone()
    names = connection.execute(
        f"SELECT repository {where} ORDER BY repository LIMIT ?", (digest, told.repository, SHOWN_SHARERS)
    )
    return {"shared_count": count, "shared_with": [familiar(name, told.default) for (name,) in names]}
