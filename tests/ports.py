"""Ports for servers that a test starts as processes of their own, or stops and starts again."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path
from typing import Final

_LOWEST: Final = 10_000
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A loopback port on which nothing listens.

    It is none of those that the kernel hands out: one of these could become the near end of somebody's connection
    before the server listens, or while it is stopped.
    """
    first_ephemeral = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.exists() else 32_768
    choose = random.SystemRandom()  # Tests in other processes choose too, and no seed is to make them choose alike.
    while True:
        port = choose.randrange(_LOWEST, max(first_ephemeral, 2 * _LOWEST))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
