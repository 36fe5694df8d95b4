"""Takes whole blobs out of the store, while it is in use.

The order: forgotten in memory, then unlinked in a thread, then removed from the index. A crash in between leaves rows
without files, which cost nothing but their place in a list; never files that nobody counts. Whoever has one of them
open reads on. One that is fetched again at the same moment is in the index afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from proxy.oci.names import Digest
from proxy.store.blobs import Blobs
from proxy.store.index import Index


class Removal:
    """Used on the event loop."""

    def __init__(self, blobs: Blobs, index: Index) -> None:
        self._blobs = blobs
        self._index = index
        self.stored_count = 0
        """How many blobs got their names since the start."""
        self._one_at_a_time = asyncio.Lock()
        self._stored_meanwhile: dict[Digest, tuple[int, bool]] | None = None

    def stored(self, digest: Digest, size: int, *, manifest: bool = False) -> None:
        """Put a blob that has just got its name into the index, also one that is being removed at this moment."""
        self.stored_count += 1
        self._index.put_blob(digest, size, manifest=manifest)
        if self._stored_meanwhile is not None:
            self._stored_meanwhile[digest] = size, manifest

    async def remove(self, digests: Sequence[Digest]) -> list[Digest]:
        """Those of them that are gone now. A few hundred at a time. Raises sqlite3.Error."""
        async with self._one_at_a_time:
            self._stored_meanwhile = {}
            try:
                with self._blobs.leaving(digests):
                    gone = await self._blobs.discard(digests)
                    if gone:
                        await self._index.forget_blobs(gone)
            finally:
                again, self._stored_meanwhile = self._stored_meanwhile, None
                for digest, (size, manifest) in again.items():
                    self._index.put_blob(digest, size, manifest=manifest)
            return gone
