"""Looking at the cache folder. It is left as it was: what is written for a trial is removed at once."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import re
import tempfile
from pathlib import Path
from typing import Final

from proxy.doctor.judge.folder import Folder, Holder
from proxy.doctor.processes import command_of, read_proc

_TRIAL_BYTES: Final = 64 * 1024
_OWN_NAMES: Final = ("blobs", "partial", "lock", "keeper.lock", "index.sqlite")
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


def look_at(path: Path) -> Folder:
    """Everything about the folder. Blocks, for as long as its disk does."""
    path = path.absolute()
    exists = os.path.lexists(path)
    if exists and not os.path.isdir(path):
        return Folder(path, is_folder=False)
    nearest = next(each for each in (path, *path.parents) if os.path.isdir(each))
    try:
        disk = os.statvfs(nearest)
    except OSError as error:
        return Folder(path, exists, problem=error.errno)
    return Folder(
        path,
        exists=exists,
        read_only=bool(disk.f_flag & os.ST_RDONLY),
        problem=_trial(path) if exists else _may_make(nearest),
        not_ours=_not_ours(path) if exists else None,
        filesystem=filesystem_of(read_proc("self/mountinfo"), nearest.resolve()),
        free_bytes=disk.f_bavail * disk.f_frsize,
        free_files=disk.f_favail if disk.f_files else None,
        holders=_holders(path / "lock") if exists else (),
    )


def user_name() -> str:
    """Who this process runs as."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def filesystem_of(mountinfo: str, path: Path) -> str | None:
    """The type of file system that a path is on, from the text of /proc/self/mountinfo; the last mount wins."""
    best, found = -1, None
    for line in mountinfo.splitlines():
        mount, dash, kind = line.partition(" - ")
        fields = mount.split(" ")
        if not dash or len(fields) < 5:
            continue
        point = Path(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        if len(point.parts) >= best and path.is_relative_to(point):
            best, found = len(point.parts), kind.split(" ")[0]
    return found


def _trial(folder: Path) -> int | None:
    """The error number of writing a small file."""
    try:
        with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=folder, buffering=0) as file:
            file.write(bytes(_TRIAL_BYTES))
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    return None


def _may_make(parent: Path) -> int | None:
    """The error number of making a folder here, without making it."""
    if os.access(parent, os.W_OK | os.X_OK, effective_ids=True):
        return None
    return errno.EACCES  # A read-only file system is told apart by its flag.


def _not_ours(folder: Path) -> str | None:
    for name in _OWN_NAMES:
        entry = folder / name
        if os.path.lexists(entry) and not os.access(entry, os.W_OK, effective_ids=True):
            return name
    return None


def _holders(lock: Path) -> tuple[Holder, ...]:
    """Who has the lock of a running cache, two while one takes over from another. It is tried for an instant."""
    try:
        with lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pids = lock_owners(read_proc("locks"), os.fstat(file.fileno()).st_ino)
                return tuple(Holder(pid, command_of(pid)) for pid in pids) or (Holder(None),)
    except OSError:
        return ()
    return ()


def lock_owners(locks: str, inode: int) -> list[int]:
    """The pids that have an inode locked, from the text of /proc/locks (proc(5)), as far as they are to be seen."""
    rows = (line.split() for line in locks.splitlines())
    found = [
        row[4]
        for row in rows
        if len(row) >= 6 and row[1] == "FLOCK" and row[5].rpartition(":")[2] == str(inode) and row[4].isdigit()
    ]
    return sorted({int(pid) for pid in found} - {0})
