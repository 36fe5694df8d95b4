"""The only place where objects are built, started and stopped.

store.py        what lives as long as the process and its folder
generation.py   what a configuration gives, and a reload replaces
listener.py     sockets
service.py      the process and its signals
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Final, Protocol, TextIO

from aiohttp import web

from proxy import __version__
from proxy.app.errors import StartError
from proxy.app.generation import Generation, Shared
from proxy.app.listener import Listener
from proxy.app.status import status_document
from proxy.app.store import Store
from proxy.clock import Clock, SystemClock
from proxy.config import Config
from proxy.metrics import Metrics
from proxy.server.admin import admin_application

__all__ = ["App", "StartError"]

KEEP_ALIVE_SECONDS: Final = 75.0
"""Longer than the 30 s for which Go's clients keep idle connections, so that we never close one they reuse."""


class _Part(Protocol):
    async def start(self) -> None: ...

    async def aclose(self) -> None: ...


class App:
    """One running cache. `await start()`, then `await stop()`; also an async context manager."""

    def __init__(self, config: Config, *, clock: Clock | None = None, access_log: TextIO | None = None) -> None:
        self.config = config
        self.metrics = Metrics(aliases=config.metrics.aliases, version=__version__)
        self._clock = clock or SystemClock()
        self._started_at = self._clock.monotonic()
        self.store = Store(config, self.metrics, self._clock)
        self._shared = Shared(self.store, self.metrics, self._clock, access_log or sys.stderr)
        self.generation = Generation(config, self._shared)
        self._clients = Listener(self._client_runner(), config.server.listen, "[server] listen")
        self._admins = Listener(self._admin_runner(), config.admin.listen, "[admin] listen")
        self._ready = False
        self._closing = AsyncExitStack()

    @property
    def client_url(self) -> str:
        """Where clients are served, once started."""
        return self._clients.url

    @property
    def admin_url(self) -> str:
        """Where metrics and status are, once started."""
        return self._admins.url

    async def __aenter__(self) -> App:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the store and listen. Upstreams are not asked: they may be down. Raises StartError."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        """Each part closes before those that were started earlier."""
        await self._start_part(self.store)
        await self._start_part(self.generation)
        for finish in (self.store.finish, self._shared.aclose, self.generation.finish):
            self._closing.push_async_callback(finish)
        self.metrics.watch_fills(lambda: len(self.store.fills))
        self.metrics.watch_limits(lambda: self.generation.limits())
        self.metrics.watch_cache(self.store.sample)
        await self._start_part(self._admins)  # Before the clients', so that it closes later: /readyz tells of the stop.
        await self._start_part(self._clients)
        self._closing.push_async_callback(self._drain)
        self._ready = True

    async def _start_part(self, part: _Part) -> None:
        self._closing.push_async_callback(part.aclose)
        await part.start()

    async def stop(self) -> None:
        """Stop accepting, let running responses end within `server.shutdown_timeout`, leave the store clean."""
        self._ready = False
        await self._closing.aclose()

    def status(self) -> dict[str, object]:
        """The document of /api/status."""
        return status_document(
            self.store, self.generation, self.metrics, self._clock.monotonic(), started_at=self._started_at
        )

    def _client_runner(self) -> web.ServerRunner:
        server = web.Server(
            self._answer, access_log=None, handler_cancellation=True, keepalive_timeout=KEEP_ALIVE_SECONDS
        )
        return web.ServerRunner(server, shutdown_timeout=0.5)

    def _answer(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """By the generation of this moment; no coroutine of its own, since every hit comes through here."""
        return self.generation.routes(request)

    def _admin_runner(self) -> web.AppRunner:
        application = admin_application(self.metrics, lambda: self._ready, self.status)
        return web.AppRunner(application, access_log=None, shutdown_timeout=0.5)

    async def _drain(self) -> None:
        """No new connections; what runs may end, within the bound."""
        await self._clients.close_door()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.server.shutdown_timeout):
                await self.generation.routes.drain()
