"""What the processes of one cache share: made before them, and the same in each."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final

from proxy.workers.board import Board

HOST: Final = 0
"""The host's place on the board; those of the servers follow."""
_CALLS: Final = 128


@dataclass(frozen=True, slots=True)
class Crew:
    """`desk` listens for the servers of the host, at `address`."""

    board: Board
    desk: socket.socket
    address: bytes


def gather_crew(workers: int) -> Crew:
    """For so many processes. Raises OSError."""
    desk = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    desk.bind("")  # A name of the kernel's choice, which is in no folder and goes with the socket (unix(7)).
    desk.listen(_CALLS)
    return Crew(Board(workers), desk, desk.getsockname())
