"""Files whose content is not what their name says: kept for a person to look at, out of the way, and not too many.

<directory>/bad/<algorithm>-<hex>[-n]    as it was found, with its times
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Final

from proxy.oci.names import Digest

log = logging.getLogger(__name__)

MOST_FILES: Final = 16
MOST_BYTES: Final = 1024**3
_PART_OF_DISK: Final = 20
"""At most one part in so many of the file system, where that is less."""


class BadFiles:
    """What was set aside, and what should have been."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stuck: set[Digest] = set()

    def take(self, path: Path, digest: Digest, status: os.stat_result | None) -> bool:
        """Move a bad file here, or at least remove it; returns whether there was one. Blocking.

        With `status` it is that very file, and none that was stored in its stead meanwhile. One that can neither be
        moved nor removed, as on a disk that has become read-only, is not usable any more.
        """
        try:
            if status is not None and not _is_same(status, path.lstat()):
                return False
            self._move(path, digest)
        except FileNotFoundError:
            return False
        except OSError as error:
            log.error("the bad file of %s cannot be moved, and is not used any more: %s", digest, error)
            self._stuck.add(digest)
        return True

    def is_usable(self, digest: Digest) -> bool:
        """Whether a file of this digest, if there is one, may be used. Called in any thread."""
        return digest not in self._stuck

    def replaced(self, digest: Digest) -> None:
        """A right file has taken the place of a bad one. Called in any thread."""
        self._stuck.discard(digest)

    def _move(self, path: Path, digest: Digest) -> None:
        """When this returns, the old name is gone for good: a power failure does not bring it back, as if it were
        right. Raises OSError."""
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


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether both are of one file, unchanged."""
    return (one.st_dev, one.st_ino, one.st_ctime_ns) == (other.st_dev, other.st_ino, other.st_ctime_ns)
