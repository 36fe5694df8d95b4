"""A listening address and the server behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from socket import socket
from typing import Final

from aiohttp import web

from proxy.app.errors import StartError
from proxy.app.sockets import BACKLOG, SharedSocket, prefer_newest, share_evenly
from proxy.config import Address

HANDING_OVER_SECONDS: Final = 1.0
"""While another process takes what is new: how long connections that began with us may take to reach us and to ask."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Sockets that listen already. They are closed in this process only.

    With those of the service manager (`lasting`) whoever comes meanwhile waits in them for the next process.
    """

    sockets: Sequence[socket]
    lasting: bool


class Listener:
    """Serves one address: `start`, then `close_door`, then `aclose`.

    `setting` is what the address is called in the configuration; `opened` are sockets to be used instead.
    """

    def __init__(
        self,
        runner: web.BaseRunner,
        address: Address,
        setting: str,
        reuse_port: bool = False,
        opened: Opened | None = None,
    ) -> None:
        self._runner = runner
        self._address = address
        self._setting = setting
        self._opened = opened
        self._reuse_port = reuse_port and not self.is_lasting
        self._servers: list[asyncio.Server] = []
        self.url = ""

    @property
    def is_lasting(self) -> bool:
        """Whether the sockets are the service manager's."""
        return self._opened is not None and self._opened.lasting

    async def start(self) -> None:
        """Listen. Raises StartError; `aclose` then, too."""
        await self._runner.setup()
        assert self._runner.server is not None
        try:
            await self._listen(self._runner.server)
        except OSError as error:
            raise cannot_listen(self._address, self._setting, error, reuse_port=self._reuse_port) from error
        host, port = self._servers[0].sockets[0].getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def prefer_newest(self) -> bool:
        """Where two processes share the port, have the newer one get all new connections. Whether that is so now."""
        return await self._with_sockets(prefer_newest)

    async def share(self) -> None:
        """Where processes share the port, have each of them get its part."""
        await self._with_sockets(share_evenly)

    async def _with_sockets(self, work: Callable[[Sequence[socket]], bool]) -> bool:
        """In a thread, and with other descriptors of the same sockets: asyncio keeps its own to itself."""
        if not self._reuse_port:
            return False
        sockets = [each.dup() for server in self._servers for each in server.sockets]
        try:
            return await asyncio.to_thread(work, sockets)
        finally:
            for each in sockets:
                each.close()

    async def close_door(self) -> None:
        """Take no new connections; those that are open go on."""
        for server in self._servers:
            server.close()

    async def aclose(self) -> None:
        """Close the door and every connection."""
        await self.close_door()
        for each in self._opened.sockets if self._opened else ():
            each.close()
        await self._runner.cleanup()

    async def _listen(self, server: web.Server) -> None:
        create = asyncio.get_running_loop().create_server
        if self._opened is None:
            host, port = self._address.host, self._address.port
            self._servers.append(await create(server, host, port, backlog=BACKLOG, reuse_port=self._reuse_port))
            return
        for each in self._opened.sockets:
            at_once = 1 if isinstance(each, SharedSocket) else BACKLOG
            self._servers.append(await create(server, sock=each, backlog=at_once))


def cannot_listen(address: Address, setting: str, error: OSError, *, reuse_port: bool) -> StartError:
    """What to raise then. `setting` is what the address is called in the configuration."""
    elsewhere = f"choose another address with {setting}"
    if reuse_port:
        advice = f"Whoever else listens there must allow that too, and run as the same user; {elsewhere}."
    else:
        advice = f"If another program uses it, stop that or {elsewhere}."
    return StartError(f"cannot listen on {address}: {error.strerror or error}. {advice}")
