"""Files whose content is not what their name says: kept for a person to look at, out of the way, and not too many.

<directory>/bad/<algorithm>-<hex>[-n]    as it was found, with its times
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from proxy.oci.names import Digest

MOST_FILES: Final = 16
MOST_BYTES: Final = 1024**3
_PART_OF_DISK: Final = 20
"""At most one part in so many of the file system, where that is less."""


class BadFiles:
    """Blocking throughout."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, path: Path, digest: Digest) -> None:
        """Move a file here; the oldest ones make room for it. One that can only be removed is. Raises OSError.

        When this returns, the old name is gone for good: a power failure does not bring it back, as if it were right.
        """
        try:
            self._folder.mkdir(exist_ok=True)
            path.rename(self._free_name(digest))
        except FileNotFoundError:
            raise
        except OSError:
            path.unlink()
        _sync_folder(path.parent)
        with contextlib.suppress(OSError):
            self._trim()

    def _free_name(self, digest: Digest) -> Path:
        name = self._folder / f"{digest.algorithm}-{digest.hex}"
        number = 0
        while name.exists():
            number += 1
            name = name.with_name(f"{digest.algorithm}-{digest.hex}-{number}")
        return name

    def _trim(self) -> None:
        """What was moved here last stays, by the time that a rename sets."""
        found = [(entry.stat(follow_symlinks=False), entry.path) for entry in os.scandir(self._folder)]
        disk = os.statvfs(self._folder)
        room = min(MOST_BYTES, disk.f_blocks * disk.f_frsize // _PART_OF_DISK)
        for number, (status, path) in enumerate(sorted(found, key=lambda each: each[0].st_ctime_ns, reverse=True)):
            room -= status.st_size
            if number >= MOST_FILES or room < 0:
                os.unlink(path)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
