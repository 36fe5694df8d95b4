"""The page cache of the operating system, as far as reading a file well needs to know of it."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from pathlib import Path
from typing import Final

_PIECE_BYTES: Final = 256 * 1024
_UNREADABLE: Final = frozenset({errno.EIO, errno.EBADMSG, errno.EILSEQ, errno.EUCLEAN})


def is_unreadable(error: OSError) -> bool:
    """Whether it is this file's own bytes that the disk does not give back; anything else may pass."""
    return error.errno in _UNREADABLE


def is_resident(fd: int, offset: int) -> bool:
    """Whether this byte is in the page cache. Where the file system cannot say, it is taken not to be."""
    try:
        os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT)
    except OSError:
        return False
    return True


def resident_until(fd: int, start: int, stop: int, step: int) -> int:
    """Where, in steps of so many bytes, the first part begins that is not in the page cache, or else `stop`.

    Of each part the ends are looked at: what is read and dropped comes and goes in large pieces.
    """
    while start < stop:
        end = min(start + step, stop)
        if not (is_resident(fd, start) and is_resident(fd, end - 1)):
            break
        start = end
    return start


def read_through(fd: int, start: int, stop: int) -> None:
    """Bring a part of a file into the page cache. Blocking. Raises OSError."""
    piece = bytearray(_PIECE_BYTES)
    for offset in range(start, stop, _PIECE_BYTES):
        os.preadv(fd, [piece], offset)


def aligned_buffer(size: int) -> memoryview:
    """Memory that `read_past_cache` can read into."""
    return memoryview(mmap.mmap(-1, size))


def open_past_cache(path: Path) -> int:
    """A file, opened so that reading it neither uses the page cache nor takes others' pages out of it: what is read is
    what is on the disk. Where the file system knows no such thing, it is read as any other. Raises OSError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags)


def read_past_cache(fd: int, into: memoryview, offset: int) -> int:
    """The bytes read, fewer than asked for only at the end of the file; `offset` and buffer begin at a page. Raises
    OSError."""
    done = 0
    while done < len(into):
        try:
            read = os.preadv(fd, [into[done:]], offset + done)
        except OSError as error:
            if error.errno != errno.EINVAL or not _stop_direct(fd):
                raise
            continue
        if not read:
            break
        done += read
    return done


def _stop_direct(fd: int) -> bool:
    """Read on through the page cache, as where a read has ended within a page. Whether that was not so already."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
    return bool(flags & os.O_DIRECT)
