"""Telling the service manager how we are (sd_notify(3)): one datagram at a time, to the socket it named.

Nothing is told where nobody listens. Telling never waits and never fails: a service manager that does not read is no
reason to stop serving.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Mapping
from typing import Final

_MICROSECONDS: Final = 1_000_000


class Notifier:
    """The line to the service manager of this process, if there is one, or to `elder`, who passes on what is told."""

    def __init__(self, environ: Mapping[str, str], pid: int, elder: socket.socket | None = None) -> None:
        self._elder = elder
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        """`@` stands for the NUL that begins the name of an abstract socket (unix(7))."""
        self._watchdog_seconds = _watchdog_seconds(environ, pid)
        self._task: asyncio.Task[None] | None = None

    def ready(self, status: str) -> None:
        """The start or the reload is over, and clients are served."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is read again; `ready` ends that."""
        moment = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={moment}", "STATUS=reading the configuration again")

    def stopping(self, status: str) -> None:
        """The end has begun."""
        self._tell("STOPPING=1", f"STATUS={status}")

    async def start(self) -> None:
        """Tell the watchdog that the event loop runs, if it wants to hear that (sd_watchdog_enabled(3))."""
        if self._watchdog_seconds is not None:
            self._task = asyncio.get_running_loop().create_task(
                self._feed_watchdog(self._watchdog_seconds / 2), name="watchdog"
            )

    async def aclose(self) -> None:
        """Stop telling it; then an end that takes longer than the watchdog waits is cut short."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _feed_watchdog(self, interval: float) -> None:
        while True:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(interval)

    def _tell(self, *lines: str) -> None:
        self.pass_on("\n".join(line.replace("\n", " ") for line in lines).encode())

    def pass_on(self, message: bytes) -> None:
        """Tell what another process of ours has to tell."""
        if self._elder is not None:
            with contextlib.suppress(OSError):
                self._elder.send(message, socket.MSG_DONTWAIT)
            return
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(message, self._address)


def _watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """How often the watchdog wants to hear something at least."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid) or not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    return int(microseconds) / _MICROSECONDS
