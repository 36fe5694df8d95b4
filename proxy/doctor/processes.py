"""Who has a port, as far as /proc tells this user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_LISTENING: Final = "0A"


def read_proc(name: str) -> str:
    """A file of /proc; nothing where there is none."""
    try:
        return (_PROC / name).read_text(errors="replace")
    except OSError:
        return ""


def command_of(pid: int) -> str | None:
    """The name of a process."""
    return read_proc(f"{pid}/comm").strip() or None


def port_owner(port: int) -> str | None:
    """`nginx (pid 123)` for who listens on a TCP port of this machine. Blocks."""
    inodes = {inode for name in ("tcp", "tcp6") for inode in listening_inodes(read_proc(f"net/{name}"), port)}
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for pid in sorted((int(each.name) for each in _PROC.iterdir() if each.name.isdigit()), reverse=True):
        if wanted and _has_open(pid, wanted):
            return f"{command_of(pid) or 'a process'} (pid {pid})"
    return None


def listening_inodes(table: str, port: int) -> set[str]:
    """The inodes of the sockets that listen on this port, from the text of /proc/net/tcp."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {
        row[9] for row in rows if len(row) > 9 and row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port
    }


def _has_open(pid: int, wanted: set[str]) -> bool:
    folder = _PROC / str(pid) / "fd"
    try:
        names = os.listdir(folder)
    except OSError:  # Another user's process, or one that has ended.
        return False
    return any(_target(folder / name) in wanted for name in names)


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""
