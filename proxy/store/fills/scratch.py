"""A file without a name, for what arrives before its turn: when it is closed, or the program dies, it is gone.

So the partial file only ever holds the beginning of its blob, whatever happens. Blocking throughout.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from proxy.oci.errors import Unavailable


class ScratchFailed(Unavailable):
    """The disk did not take, or give back, what arrived before its turn."""


class Scratch:
    """Open from its making, which raises ScratchFailed as all of it does, to `close`."""

    def __init__(self, folder: Path) -> None:
        try:
            self._file = tempfile.TemporaryFile(dir=folder, prefix="put-", buffering=0)  # noqa: SIM115 (`close` is ours)
        except OSError as error:
            raise ScratchFailed(f"the cache cannot write to its disk: {error.strerror}") from None

    def write(self, offset: int, pieces: Sequence[bytes]) -> int:
        """Put a few pieces there, one after the other; how many bytes that were. What did not fit fails."""
        size = sum(map(len, pieces))
        try:
            written = os.pwritev(self._file.fileno(), pieces, offset)
        except OSError as error:
            raise ScratchFailed(f"the cache cannot write to its disk: {error.strerror}") from None
        if written < size:
            raise ScratchFailed("the cache cannot write to its disk: it is full")
        return size

    def read(self, offset: int, into: memoryview) -> int:
        """How many bytes were got from there."""
        try:
            return os.preadv(self._file.fileno(), [into], offset)
        except OSError as error:
            raise ScratchFailed(f"the cache cannot read from its disk: {error.strerror}") from None

    def close(self) -> None:
        """Its room is free again."""
        self._file.close()
