"""What a look at the cache folder means."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.doctor.findings import Finding, failed, ok
from proxy.units import format_size

LOW_BYTES: Final = 2**30
LOW_FILES: Final = 1000

_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "fuse.glusterfs", "ceph", "afs"}
)
_PASSING: Final = {"tmpfs": "in memory, gone at a restart", "ramfs": "in memory, gone at a restart"}
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM)
_ELSEWHERE: Final = "choose another with [cache] directory, or PULLTHROUGH_CACHE__DIRECTORY in the environment"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that uses the folder; what is None the system does not tell."""

    pid: int | None
    command: str | None = None

    def __str__(self) -> str:
        return f"{self.command or 'a process'}{'' if self.pid is None else f' (pid {self.pid})'}"


@dataclass(frozen=True, slots=True)
class Folder:
    """A cache folder as it was found; sizes and files are those that this user may still take."""

    path: Path
    exists: bool = True
    is_folder: bool = True
    read_only: bool = False
    problem: int | None = None
    """The error number of a trial to write into it, or to make it."""
    not_ours: str | None = None
    """Something in it that this user may not write."""
    filesystem: str | None = None
    free_bytes: int = 2**40
    free_files: int | None = None
    """None for file systems that do not count files."""
    holders: tuple[Holder, ...] = ()
    """Two while a new process takes over from an old one."""


def judge_folder(folder: Folder, user: str, *, serving: bool | None) -> Finding:
    """`serving`: whether our own process answers at the client listener, None where that could not be told."""
    forbidden = folder.problem in _FORBIDDEN or folder.not_ours is not None
    if serving and forbidden and folder.exists and not folder.read_only:
        return ok(f"{folder.path}: in use by pullthrough, which runs as somebody else than {user}")
    return _cannot_use(folder, user) or _no_space(folder) or _held(folder, serving) or _good(folder)


def _cannot_use(folder: Folder, user: str) -> Finding | None:
    path = folder.path
    if folder.exists and not folder.is_folder:
        return failed(f"{path} is not a folder", f"Remove it, or {_ELSEWHERE}.")
    if folder.read_only or folder.problem == errno.EROFS:
        return failed(
            f"{path} is on a file system that is mounted read-only",
            f"Mount it writable (for a container: no `:ro` on the volume), or {_ELSEWHERE}.",
        )
    if folder.problem in _FORBIDDEN:
        what = f"{user} may not write into {path}" if folder.exists else f"{user} may not make {path}"
        return failed(what, f"As root:\n    install -d -o {user} {path}\nOr {_ELSEWHERE}.")
    if folder.not_ours is not None:
        return failed(
            f"{user} may not write {path / folder.not_ours}: it was probably run as another user before",
            f"As root:\n    chown -R {user} {path}",
        )
    if folder.filesystem in _NETWORK:
        return failed(
            f"{path} is on a network file system ({folder.filesystem}), on which the index is not safe",
            f"Use a local disk: {_ELSEWHERE}.",
        )
    if folder.problem not in (None, errno.ENOSPC, errno.EDQUOT):
        return failed(f"{path} cannot be used: {os.strerror(folder.problem)}", f"Look at that disk, or {_ELSEWHERE}.")
    return None


def _no_space(folder: Folder) -> Finding | None:
    cure = f"Make room there, stop the program and remove the folder (it fills again), or {_ELSEWHERE}."
    if folder.problem == errno.EDQUOT:
        return failed(f"this user's disk quota on {folder.path} is used up", cure)
    if folder.free_files is not None and folder.free_files < LOW_FILES:
        return failed(f"no more files fit on the disk of {folder.path} ({folder.free_files} inodes are free)", cure)
    if folder.problem == errno.ENOSPC or folder.free_bytes < LOW_BYTES:
        how = "full" if folder.problem == errno.ENOSPC or not folder.free_bytes else "almost full"
        free = format_size(folder.free_bytes)
        return failed(f"the disk of {folder.path} is {how}: {free} free, and single layers can be larger", cure)
    return None


def _held(folder: Folder, serving: bool | None) -> Finding | None:
    if not folder.holders or serving is not False:
        return None
    return failed(
        f"{folder.path} is used by {_names(folder.holders)}, and nothing answers at the configured address",
        "That runs with another configuration: give the same one to both, or stop it, or give this one another folder.",
    )


def _good(folder: Folder) -> Finding:
    parts = [f"{folder.filesystem or 'file system unknown'}, {format_size(folder.free_bytes)} free"]
    if not folder.exists:
        parts.append("will be made")
    if folder.filesystem in _PASSING:
        parts.append(_PASSING[folder.filesystem])
    if folder.filesystem == "overlay":
        parts.append("a container's own layer, gone with it: mount a volume here")
    if folder.holders:
        parts.append(f"in use by {_names(folder.holders)}")
    return ok(f"{folder.path}: {', '.join(parts)}")


def _names(holders: tuple[Holder, ...]) -> str:
    return " and ".join(str(each) for each in holders)
