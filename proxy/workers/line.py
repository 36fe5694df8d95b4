"""A server's line to the host: called again whenever it breaks, since the next host listens at the same place.

The supervisor keeps that place open, so a call is answered as soon as there is a host. `HELLO` says that there is one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from proxy.workers.link import Link
from proxy.workers.messages import Kind

log = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 0.05
"""How long it takes to call again a place where nobody listens: the program is about to end."""


class Asking(Protocol):
    """A request that waits for what the host says."""

    def heard(self, kind: Kind, content: bytes, fd: int | None) -> None:
        """The host says this; the descriptor is the request's from now on."""

    def lost(self) -> None:
        """The host has gone, and says no more."""


class Line:
    """Used on the event loop: `start`, then `close`."""

    def __init__(self, address: bytes, counted: Callable[[], Iterable[bytes]]) -> None:
        """`counted` gives what was counted since the last time, for the host."""
        self._address = address
        self._counted = counted
        self._link: Link | None = None
        self._asking: dict[int, Asking] = {}
        self._count = 0
        self._up = asyncio.Event()
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Call the host. It need not be there yet."""
        self._timer = None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.setblocking(False)
            sock.connect(self._address)
        except OSError as error:
            sock.close()
            log.debug("the host of this cache cannot be called: %s", error)
            self._call_again()
            return
        self._link = Link(sock, self)

    async def up(self) -> None:
        """Wait until the host listens."""
        await self._up.wait()

    def ask(self, asking: Asking) -> int:
        """The number by which the host and this request know each other, until `forget`."""
        self._count += 1
        self._asking[self._count] = asking
        return self._count

    def forget(self, number: int) -> None:
        """The request is over."""
        self._asking.pop(number, None)

    def say(self, kind: Kind, number: int, content: bytes = b"") -> None:
        """Say this to the host, if it is there."""
        if self._link is not None:
            self._link.send(kind, number, content)

    def report(self, number: int = 0) -> None:
        """Say what was counted, if the host listens: it is what the FLUSH of this number asked for."""
        if self._link is None or not self._up.is_set():
            return
        for each in self._counted():
            self._link.send(Kind.COUNTS, 0, each)
        if number:
            self._link.send(Kind.COUNTS, number, b"[]")

    def close(self) -> None:
        """Say what was counted, and hang up. Requests that still wait are lost."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.report()
        if self._link is not None:
            self._link.close()

    def received(self, kind: Kind, number: int, content: bytes, fd: int | None) -> None:
        """See `link.Reader`."""
        if kind is Kind.HELLO:
            self._up.set()
            self.report()
        elif kind is Kind.FLUSH:
            self.report(number)
        elif number in self._asking:
            self._asking[number].heard(kind, content, fd)
        elif fd is not None:
            os.close(fd)

    def ended(self) -> None:
        """See `link.Reader`."""
        self._up.clear()
        self._link = None
        for each in list(self._asking.values()):
            each.lost()
        self._call_again()

    def _call_again(self) -> None:
        if not self._closed:
            self._timer = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self.start)
