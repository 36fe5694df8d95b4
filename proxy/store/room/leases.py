"""Which stored blobs are being read from: those are not evicted."""

from __future__ import annotations

from typing import Self

from proxy.oci.names import Digest


class Leases:
    """Counts the readers of each blob. Used on the event loop."""

    def __init__(self) -> None:
        self._counts: dict[Digest, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._counts

    def of(self, digest: Digest) -> Lease:
        """To be held, in a `with`, while the blob is read."""
        return Lease(self._counts, digest)


class Lease:
    """One reader of one blob."""

    __slots__ = ("_counts", "_digest")

    def __init__(self, counts: dict[Digest, int], digest: Digest) -> None:
        self._counts = counts
        self._digest = digest

    def __enter__(self) -> Self:
        self._counts[self._digest] = self._counts.get(self._digest, 0) + 1
        return self

    def __exit__(self, *_: object) -> None:
        left = self._counts[self._digest] - 1
        if left:
            self._counts[self._digest] = left
        else:
            del self._counts[self._digest]
