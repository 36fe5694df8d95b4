"""Reads stored content and compares it with its digest. Blocking."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

from proxy.oci.manifests import MAX_MANIFEST_BYTES
from proxy.oci.names import Digest

_PIECE_BYTES: Final = 1024 * 1024


class Wrong(Exception):
    """The bytes of a file do not have its digest; `status` says which file that was."""

    def __init__(self, status: os.stat_result) -> None:
        super().__init__()
        self.status = status


def read_whole(path: Path, digest: Digest) -> bytes | None:
    """The right bytes; None for what is larger than any manifest: a layer, which nobody asks for as a whole but by
    mistake. Raises OSError and Wrong."""
    with path.open("rb") as file:
        content = file.read(MAX_MANIFEST_BYTES + 1)
        if len(content) > MAX_MANIFEST_BYTES:
            return None
        if not digest.matches(content):
            raise Wrong(os.fstat(file.fileno()))
    return content


def is_right(fd: int, digest: Digest, stop: threading.Event) -> bool:
    """Whether an open file has this digest; ends soon, in vain, once it is told to stop. Raises OSError."""
    hasher = digest.hasher()
    piece = memoryview(bytearray(_PIECE_BYTES))
    offset = 0
    while not stop.is_set() and (read := os.preadv(fd, [piece], offset)):
        hasher.update(piece[:read])
        offset += read
    return hasher.hexdigest() == digest.hex
