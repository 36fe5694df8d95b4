"""A listening address and the server behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from socket import socket
from typing import Final

from aiohttp import web

from proxy.app.errors import StartError
from proxy.app.sockets import prefer_newest, share_evenly
from proxy.config import Address

BACKLOG: Final = 1024


class Listener:
    """Serves one address: `start`, then `close_door`, then `aclose`.

    `setting` is what the address is called in the configuration. `passed` are sockets that the service manager has
    opened instead; they are closed in this process only, and whoever comes meanwhile waits in them for the next one.
    """

    def __init__(
        self,
        runner: web.BaseRunner,
        address: Address,
        setting: str,
        reuse_port: bool = False,
        passed: Sequence[socket] = (),
    ) -> None:
        self._runner = runner
        self._address = address
        self._setting = setting
        self._reuse_port = reuse_port and not passed
        self._passed = passed
        self._servers: list[asyncio.Server] = []
        self.url = ""

    @property
    def was_passed(self) -> bool:
        """Whether the sockets are the service manager's."""
        return bool(self._passed)

    async def start(self) -> None:
        """Listen. Raises StartError; `aclose` then, too."""
        await self._runner.setup()
        assert self._runner.server is not None
        try:
            await self._listen(self._runner.server)
        except OSError as error:
            raise StartError(
                f"cannot listen on {self._address}: {error.strerror or error}. {self._advice()}"
            ) from error
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
        for each in self._passed:
            each.close()
        await self._runner.cleanup()

    async def _listen(self, server: web.Server) -> None:
        create = asyncio.get_running_loop().create_server
        for each in self._passed:
            self._servers.append(await create(server, sock=each, backlog=BACKLOG))
        if not self._passed:
            host, port = self._address.host, self._address.port
            self._servers.append(await create(server, host, port, backlog=BACKLOG, reuse_port=self._reuse_port))

    def _advice(self) -> str:
        if self._reuse_port:
            return f"Whoever else listens there must allow that too, and run as the same user; {self._elsewhere()}."
        return f"If another program uses it, stop that or {self._elsewhere()}."

    def _elsewhere(self) -> str:
        return f"choose another address with {self._setting}"
