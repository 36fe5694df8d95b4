"""A port that can go away and come back."""

import socket
from collections.abc import Awaitable, Callable

from aiohttp import web

Serve = Callable[["Listener", web.BaseRequest], Awaitable[web.StreamResponse]]


class Listener:
    """An HTTP server on a port of its own, which it keeps while it is gone."""

    def __init__(self, name: str, serve: Serve, host: str = "127.0.0.1") -> None:
        self.name = name
        self._serve = serve
        self._host = host
        self._socket: socket.socket | None = None  # bound from start to close, listening while we serve
        self._port = 0  # kept apart, since the socket is made anew when the hub goes away
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        if not self._port:
            raise RuntimeError("the hub has a URL only while it runs")
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen on a free port."""
        self._bind(0)
        await self.back()

    async def back(self) -> None:
        """Listen, on the port we always had."""
        if self._runner is None and self._socket is not None:
            # Cancellation: an answer that is held ends when its client leaves.
            server = web.Server(lambda request: self._serve(self, request), access_log=None, handler_cancellation=True)
            self._runner = web.ServerRunner(server, shutdown_timeout=1.0)
            await self._runner.setup()
            await web.SockSite(self._runner, self._socket).start()

    async def gone(self) -> None:
        """Refuse connections and break the open ones; the port stays ours."""
        if self._runner is not None:
            port = self._port
            await self._stop()
            self._bind(port)

    async def close(self) -> None:
        """Stop for good."""
        await self._stop()
        if self._socket is not None:
            self._socket.close()

    async def _stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for site in runner.sites:
            await site.stop()
        if runner.server is not None:
            for connection in runner.server.connections:
                if connection.transport is not None:
                    connection.transport.abort()
        await runner.cleanup()

    def _bind(self, port: int) -> None:
        # A socket that is bound and does not listen refuses connections and lets nobody else have the port.
        if self._socket is not None:
            self._socket.close()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setblocking(False)
        self._socket.bind((self._host, port))
        self._port = int(self._socket.getsockname()[1])
