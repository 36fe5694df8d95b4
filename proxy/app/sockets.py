"""Listening sockets: opened for several processes of one cache, or had by two caches at the moment of a restart.

The processes of one cache accept from the same socket, one connection at a time, so that the idle one comes first. What
follows is about a restart, where an old and a new cache have a socket each on one address.

With SO_REUSEPORT each process has a socket of its own there, and the kernel deals new connections out among them. When
one is closed, whoever waits in its queue, or is in the middle of the handshake, is reset: about two clients at each
restart under load, as measured (net.ipv4.tcp_migrate_req=1 would save them, and is off by default). So the one that is
to be closed first has the kernel give all new connections to the other, goes on to accept for a moment what was begun
before, and is closed when nobody can be in it any more.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_SO_DETACH_REUSEPORT_BPF: Final = 68
"""socket(7). A program chooses the socket of a connection by its number, in the order in which they began to listen;
for a number that none has, and without a program, the kernel chooses. The program stays until it is detached."""
_RETURN: Final = 0x06
BACKLOG: Final = 1024
"""Connections that wait to be accepted."""

_LISTENING: Final = "0A"
_TABLES: Final = {socket.AF_INET: Path("/proc/self/net/tcp"), socket.AF_INET6: Path("/proc/self/net/tcp6")}


class SharedSocket(socket.socket):
    """One that listens already, for a loop that shall accept one connection at a time (`backlog` 1) and leave it so."""

    def listen(self, backlog: int = BACKLOG, /) -> None:
        """It does."""


def open_sockets(host: str, port: int, *, reuse_port: bool) -> list[socket.socket]:
    """Sockets that listen on all addresses of a host, for several processes; no host is every address. Blocking.

    Raises OSError.
    """
    flags = socket.AI_PASSIVE
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock: socket.socket = SharedSocket(family, kind, protocol)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)
            sock.bind(address)
            socket.socket.listen(sock, BACKLOG)
            sock.setblocking(False)
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return sockets


def prefer_newest(sockets: Sequence[socket.socket]) -> bool:
    """Have all new connections given to the newer one of two processes. Whether there are two. Blocking, briefly."""
    return all([_prefer_newest(each) for each in sockets])


def share_evenly(sockets: Sequence[socket.socket]) -> bool:
    """End that preference, which a process that is gone by now may have left. Whether there was one."""
    return any([_share_evenly(each) for each in sockets])


def _share_evenly(sock: socket.socket) -> bool:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)
    except OSError:  # There was none.
        return False
    return True


def _prefer_newest(sock: socket.socket) -> bool:
    try:
        table = _TABLES[sock.family].read_text()
        if sharing(table, os.fstat(sock.fileno()).st_ino) != 2:
            return False
        instructions = array("B", struct.pack("=HBBI", _RETURN, 0, 0, 1))
        address, _ = instructions.buffer_info()  # Without ctypes, which wants memory that is written and executed.
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, struct.pack("@HP", 1, address))
    except (OSError, KeyError) as error:
        log.info("new connections cannot be given to another process: %s", error)
        return False
    return True


def sharing(table: str, inode: int) -> int:
    """How many sockets listen on the address of the one with this inode, by the text of /proc/net/tcp (proc(5))."""
    rows = [row.split() for row in table.splitlines()[1:]]
    addresses = [(row[1], row[9]) for row in rows if len(row) > 9 and row[3] == _LISTENING]
    own = next((address for address, number in addresses if number == str(inode)), None)
    return sum(address == own for address, _ in addresses) if own else 0
