"""When what was last used: taken note of in memory at every use, and brought into the index now and then.

The use of a manifest is the use of its whole image: a client that has the layers asks for the manifest alone, day after
day, and a new machine will want the layers too. A crash forgets the uses of the last moments, and nothing else.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from typing import Final

from proxy.clock import Clock
from proxy.oci.manifests import MAX_MANIFEST_BYTES, children
from proxy.oci.names import Digest
from proxy.store.blobs import Blobs
from proxy.store.index import Index

log = logging.getLogger(__name__)

_MAX_DEPTH: Final = 3
"""An index, its manifests, their layers."""


class Usage:
    """Who wants to be exact calls `flush` first. Used on the event loop."""

    def __init__(self, blobs: Blobs, index: Index, clock: Clock) -> None:
        self._blobs = blobs
        self._index = index
        self._clock = clock
        self._touched: dict[Digest, float] = {}
        self._settle: Callable[[], None] = lambda: None

    def settle_first(self, settle: Callable[[], None]) -> None:
        """Before anything is read here, `settle` brings what was taken note of elsewhere."""
        self._settle = settle

    def touch(self, digest: Digest) -> None:
        """This blob or manifest is used now."""
        self._touched[digest] = self._clock.time()

    def __contains__(self, digest: Digest) -> bool:
        """Whether it was used since the last flush."""
        self._settle()
        return digest in self._touched

    async def flush(self) -> None:
        """Bring all uses into the index. One that it cannot take is kept in mind for the next time."""
        self._settle()
        touched, self._touched = self._touched, {}
        if not touched:
            return
        try:
            await self._index.write(lambda connection: self._write(connection, touched), remember=True)
        except sqlite3.Error as error:
            log.error("what was used last could not be written to the index: %s", error)
            self._touched = touched | self._touched

    def _write(self, connection: sqlite3.Connection, touched: Mapping[Digest, float]) -> None:
        """In the writer's thread."""
        used: dict[Digest, float] = {}
        for digest, moment in touched.items():
            self._spread(connection, digest, moment, used, _MAX_DEPTH)
        rows = [(moment, str(digest), moment) for digest, moment in used.items()]
        connection.executemany("UPDATE blobs SET used_at = ? WHERE digest = ? AND used_at < ?", rows)

    def _spread(
        self, connection: sqlite3.Connection, digest: Digest, moment: float, used: dict[Digest, float], depth: int
    ) -> None:
        if used.get(digest, -1.0) >= moment:
            return
        used[digest] = moment
        row = connection.execute("SELECT manifest FROM blobs WHERE digest = ?", (str(digest),)).fetchone()
        if not depth or row is None or not row[0]:
            return
        for child in children(self._body(digest)):
            self._spread(connection, child.digest, moment, used, depth - 1)

    def _body(self, digest: Digest) -> bytes:
        """Empty for what cannot be read: that it is gone or bad is found out when somebody asks for it."""
        try:
            with self._blobs.path(digest).open("rb") as file:
                return file.read(MAX_MANIFEST_BYTES)
        except OSError:
            return b""
