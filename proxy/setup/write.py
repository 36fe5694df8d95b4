"""Putting a set-up in place: all files are looked at before the first is touched, and each changes in one step."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.setup.errors import NotWritten, Refused
from proxy.setup.guide import Part, Setup
from proxy.setup.plan import content_for

BACKUP: Final = ".before-pullthrough"
_FILE_MODE: Final = 0o644
_FOLDER_MODE: Final = 0o755
_MOST_LINKS: Final = 40


@dataclass(frozen=True, slots=True)
class Written:
    """A file as it is now. `backup` is what it was before, where it was something else."""

    path: Path
    changed: bool
    backup: Path | None = None


@dataclass(frozen=True, slots=True)
class _Change:
    path: Path
    before: str | None
    after: str


def install(setup: Setup, root: Path, *, force: bool = False) -> list[Written]:
    """Put every part where it belongs below `root`. Raises Refused before anything is changed; NotWritten."""
    changes = [_plan(part, setup.url, root, force) for part in setup.parts if part.path is not None]
    return [_apply(change) for change in changes]


def below(root: Path, path: str) -> Path:
    """Where `path` leads when `root` is `/`: links are followed, and none leads out. Raises OSError for a loop."""
    ahead, here, links = deque(path.split("/")), list[str](), 0
    while ahead:
        part = ahead.popleft()
        if part in ("", "."):
            continue
        if part == "..":
            del here[-1:]
            continue
        try:
            link = os.readlink(root.joinpath(*here, part))
        except OSError:  # No link, or nothing there yet.
            here.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if link.startswith("/"):
            here.clear()
        ahead.extendleft(reversed(link.split("/")))
    return root.joinpath(*here)


def _plan(part: Part, mirror: str, root: Path, force: bool) -> _Change:
    assert part.path is not None
    path = root / part.path.lstrip("/")
    try:
        path = below(root, part.path)
        before = _read(path)
        return _Change(path, before, content_for(part, mirror, before, force=force))
    except Refused as refusal:
        raise Refused(f"{path} is left as it is: {refusal}") from refusal
    except OSError as cause:
        raise NotWritten(f"cannot read {path}: {cause.strerror}") from cause


def _read(path: Path) -> str | None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Refused("it is not a regular file")
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as cause:
        raise Refused("it is not UTF-8 text") from cause


def _apply(change: _Change) -> Written:
    if change.before == change.after:
        return Written(change.path, changed=False)
    try:
        _make_folder(change.path.parent)
        return Written(change.path, changed=True, backup=_replace(change.path, change.after))
    except OSError as cause:
        raise NotWritten(f"cannot write {change.path}: {cause.strerror}") from cause


def _make_folder(folder: Path) -> None:
    """With the mode that others can read it by, whatever the umask is."""
    missing = list(itertools.takewhile(lambda each: not each.exists(), (folder, *folder.parents)))
    for each in reversed(missing):
        each.mkdir()
        each.chmod(_FOLDER_MODE)


def _replace(path: Path, content: str) -> Path | None:
    """In one step, as who owned it and with the mode it had; the backup, if there was something."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    backup = None
    try:
        with open(descriptor, "wb") as file:
            file.write(content.encode())
            file.flush()
            _take_after(path, descriptor)
            os.fsync(descriptor)
        backup = _back_up(path)
        os.replace(name, path)
    except BaseException:
        for leftover in (name, backup):
            if leftover is not None:
                with contextlib.suppress(OSError):
                    os.unlink(leftover)
        raise
    _sync_folder(path.parent)
    return backup


def _take_after(path: Path, descriptor: int) -> None:
    try:
        old = path.stat()
    except FileNotFoundError:
        os.fchmod(descriptor, _FILE_MODE)
        return
    new = os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _back_up(path: Path) -> Path | None:
    """A second name of the old file, which is about to lose its first; never one that is taken."""
    for number in itertools.count():
        backup = path.with_name(f"{path.name}{BACKUP}{f'.{number}' if number else ''}")
        try:
            os.link(path, backup)
        except FileExistsError:
            continue
        except FileNotFoundError:
            return None
        return backup
    raise AssertionError("there is always a next number")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
