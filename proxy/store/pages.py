"""The page cache of the operating system, as far as reading a file well needs to know of it."""

from __future__ import annotations

import errno
import os
from typing import Final

_PIECE_BYTES: Final = 256 * 1024
_STRETCH_BYTES: Final = 256 * 1024
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


def read_through(fd: int, start: int, stop: int) -> None:
    """Bring a part of a file into the page cache. Blocking. Raises OSError."""
    piece = bytearray(_PIECE_BYTES)
    for offset in range(start, stop, _PIECE_BYTES):
        os.preadv(fd, [piece], offset)


def read_without_trace(fd: int, into: memoryview, offset: int) -> int:
    """Read, and leave the page cache as it was: what was not in it is dropped again. Blocking. Raises OSError.

    Returns the bytes read, fewer than asked for only at the end of the file. The file was opened for this with
    `without_readahead`, or the next stretch would be found in the cache because this one was read. Where the file
    system cannot say what is in the cache, nothing is dropped: it could be what others read.
    """
    done = 0
    while done < len(into):
        stretch = into[done : done + _STRETCH_BYTES]
        read = _read_stretch(fd, stretch, offset + done)
        done += read
        if read < len(stretch):
            break
    return done


def without_readahead(fd: int) -> None:
    """Let what is read from this open file be brought in and nothing after it. Raises OSError."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)


def _read_stretch(fd: int, into: memoryview, offset: int) -> int:
    tells = True
    try:
        resident = os.preadv(fd, [into], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        resident = 0
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        resident, tells = 0, False
    read = resident
    while read < len(into) and (more := os.preadv(fd, [into[read:]], offset + read)):
        read += more
    if tells and read > resident:
        os.posix_fadvise(fd, offset + resident, read - resident, os.POSIX_FADV_DONTNEED)
    return read
