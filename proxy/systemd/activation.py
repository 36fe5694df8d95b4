"""Sockets that the service manager opened for us (sd_listen_fds(3)).

They stay open, with whoever waits in their queues, while one process ends and the next one starts.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Mapping
from typing import Final

FIRST_FD: Final = 3
NAMES: Final = ("clients", "admin")
"""What FileDescriptorName= of a socket unit may say: which listener the socket is."""

_MAX_FDS: Final = 64


class ActivationError(Exception):
    """What was passed cannot be used; the message says why."""


def passed_fds(environ: Mapping[str, str], pid: int) -> dict[str, list[int]]:
    """The descriptors passed to the process `pid`, by name; none is the usual case. Raises ActivationError."""
    if environ.get("LISTEN_PID") != str(pid) or "LISTEN_FDS" not in environ:
        return {}  # What was meant for a parent of ours stays its own.
    given = environ["LISTEN_FDS"]
    if not re.fullmatch(r"[0-9]{1,3}", given, re.ASCII) or int(given) > _MAX_FDS:
        raise ActivationError(f"LISTEN_FDS is {given!r}; expected a number of sockets up to {_MAX_FDS}")
    count = int(given)
    names = environ.get("LISTEN_FDNAMES", "").split(":") if count else []
    if len(names) != count:
        raise ActivationError(f"LISTEN_FDNAMES has {len(names)} names for {count} sockets")
    found: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        if name not in NAMES:
            expected = " or ".join(NAMES)
            raise ActivationError(f"a socket called {name!r} was passed; expected FileDescriptorName={expected}")
        found.setdefault(name, []).append(FIRST_FD + number)
    return found


def adopt(fds: Iterable[int]) -> list[socket.socket]:
    """These descriptors as sockets that listen. Raises ActivationError; all are closed then."""
    sockets: list[socket.socket] = []
    try:
        for fd in fds:
            os.set_inheritable(fd, False)
            sockets.append(socket.socket(fileno=fd))
        for each in sockets:
            _check(each)
    except (OSError, ActivationError) as error:
        for each in sockets:
            each.close()
        raise ActivationError(str(error)) from error
    return sockets


def _check(sock: socket.socket) -> None:
    listens = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not listens:
        raise ActivationError(f"descriptor {sock.fileno()} is no TCP socket that listens; expected ListenStream=port")
    sock.setblocking(False)
