"""What stored content is compared with, and what follows when it is not as it was stored.

Wrong or lost content is nobody's error but ours, and no client's: it is counted, its row is forgotten, and who asks for
the digest next starts a fill, as if it had never been there.
"""

from __future__ import annotations

import logging
from typing import Final, Literal

from proxy.metrics import Metrics
from proxy.oci.names import Digest
from proxy.store.index import Index

log = logging.getLogger(__name__)

Found = Literal["opened", "read", "scrub", "missing"]
"""How it came out: by its size when it was opened, by its bytes when they were read for an answer or by the scrub; or
there is no file although the index has the blob."""

_WHAT: Final[dict[Found, str]] = {
    "opened": "has another size than it was stored with; it is set aside",
    "read": "is not what was stored; it is set aside",
    "scrub": "is not what was stored; it is set aside",
    "missing": "has no file any more",
}


class Integrity:
    """Used on the event loop."""

    def __init__(self, index: Index, metrics: Metrics) -> None:
        self._index = index
        self._metrics = metrics

    def size(self, digest: Digest) -> int | None:
        """The bytes that a blob was stored with, if it is known to be stored."""
        return self._index.blob_size(digest)

    def adopt(self, digest: Digest, size: int) -> None:
        """A file is there that the index does not know: it was lost, or we died before we could write to it."""
        self._index.put_blob(digest, size)

    def lost(self, count: int) -> None:
        """So many blobs of the index had no file, and are not in the index any more."""
        if count:
            log.error("%d blobs have no file any more", count)
            self._metrics.integrity_failed("missing", count)

    def failed(self, digest: Digest, found: Found, detail: object = "") -> None:
        """A blob is not as it was stored."""
        log.error("blob %s %s%s", digest, _WHAT[found], f" ({detail})" if detail else "")
        self._metrics.integrity_failed(found)
        self._index.drop_blob(digest)
