"""The only place where objects are built, started and stopped.

store.py                        what lives as long as the process and its folder
generation.py, generations.py   what a configuration gives, and a reload replaces
listener.py, sockets.py         where clients and people come in
service.py                      the process: signals, and what the service manager is told
crew.py, server.py              several processes: what they share, and what those are that serve beside this one
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from socket import gethostname
from typing import Protocol, TextIO
from urllib.parse import urlsplit

from aiohttp import web

from proxy import __version__
from proxy.app.crew import HOST, Crew
from proxy.app.errors import StartError
from proxy.app.facts import gather_facts
from proxy.app.generation import Generation, Shared
from proxy.app.generations import Generations
from proxy.app.house import build_house
from proxy.app.listener import HANDING_OVER_SECONDS, Listener, Opened
from proxy.app.quotas import Quotas
from proxy.app.reloading import carried_over
from proxy.app.status import status_document
from proxy.app.store import Store
from proxy.certificates import CertificateError
from proxy.clock import Clock, SystemClock
from proxy.config import Config
from proxy.metrics import Metrics, WorkerSample
from proxy.server.accounting import add
from proxy.server.admin import admin_application
from proxy.server.admin_api import AdminApi
from proxy.server.certificate import Certificate, Pair, read_pair
from proxy.server.connections import Connections
from proxy.server.events import Feed
from proxy.server.quota_api import QuotaApi
from proxy.server.setup_api import SetupApi
from proxy.webhook.keeper import Keeper as Webhook
from proxy.workers.counts import add as add_counts
from proxy.workers.desk import Desk

__all__ = ["App", "StartError"]


class _Part(Protocol):
    async def start(self) -> None: ...

    async def aclose(self) -> None: ...


class App:
    """One running cache. `await start()`, then `await stop()`; also an async context manager."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        access_log: TextIO | None = None,
        opened: Mapping[str, Opened] | None = None,
        crew: Crew | None = None,
    ) -> None:
        """`opened` are sockets that there are already: `clients`, `admin`. With a `crew` this is the host of it."""
        self.config = config
        self.metrics = Metrics(aliases=config.metrics.aliases, version=__version__)
        self._clock = clock or SystemClock()
        self._started_at = self._clock.monotonic()
        self._crew = crew
        self._changed = crew.board.changed if crew else _nothing
        self.store = Store(config, self.metrics, self._clock, self._changed)
        self.quotas = Quotas(config.quota, self.store.index, self.metrics, self._clock)
        self.prober = self.quotas.prober(lambda: self.generation.upstreams.values())
        self.report = self.quotas.report(lambda: self.generation.accounts())
        self.webhook = self._build_webhook(config)
        shared = Shared(self.store, self.quotas, self.metrics, self._clock, access_log or sys.stderr)
        self._generations = Generations(config, shared)
        self._certificate = Certificate()
        self._connections = Connections(
            self._answer,
            self._repeat,
            self.metrics,
            config.server,
            certificate=self._certificate,
            census=crew.board.seat(HOST) if crew else None,
        )
        self._desk = Desk(crew.desk, self._answer, self._count, lambda: crew.board.edition) if crew else None
        clients = web.ServerRunner(self._connections, shutdown_timeout=0.5)
        opened, reuse_port = opened or {}, config.server.reuse_port
        self._clients = Listener(clients, config.server.listen, "[server] listen", reuse_port, opened.get("clients"))
        self._feed = Feed({"status": self._status_now, "quota": self._quota_without_time})
        self._admins = Listener(
            self._admin_runner(shared), config.admin.listen, "[admin] listen", reuse_port, opened.get("admin")
        )
        self._ready = False
        self._closing = AsyncExitStack()

    @property
    def generation(self) -> Generation:
        """What answers now, once started."""
        return self._generations.current

    @property
    def client_url(self) -> str:
        """Where clients are served, once started."""
        return self._clients.url.replace("http", self.config.server.scheme, 1)

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
        await self._start_part(self.quotas)
        await self._start_part(self._generations)
        await self.quotas.load()
        for finish in (self.store.finish, self._generations.finish):
            self._closing.push_async_callback(finish)
        self._certificate.use(await self._pair(self.config))
        await self._start_part(self._certificate)
        await self._start_part(self.prober)
        await self._start_part(self.webhook)
        self.metrics.watch_fills(lambda: len(self.store.fills))
        self.metrics.watch_connections(lambda: len(self._connections))
        self.metrics.watch_workers(self._workers)
        self.metrics.watch_limits(lambda: self.generation.limits())
        self.metrics.watch_quota(self.report.samples)
        self.metrics.watch_cache(self.store.sample)
        self.metrics.watch_room(self.store.room.sample)
        self.metrics.watch_scrub(self.store.scrub.last_finished)
        if self._desk is not None:
            await self._start_part(self._desk)
        await self._start_part(self._admins)  # Before the clients', so that it closes later: /readyz tells of the stop.
        await self._start_part(self._clients)
        await self._admins.prefer_newest()  # A scrape, or whoever waits for /readyz, is answered by one of two.
        await self._clients.share()
        self._closing.push_async_callback(self._drain)
        self._ready = True

    async def _start_part(self, part: _Part) -> None:
        self._closing.push_async_callback(part.aclose)
        await part.start()

    async def stop(self) -> None:
        """Stop accepting, let running responses end within `server.shutdown_timeout`, leave the store clean."""
        self._ready = False
        await self._closing.aclose()

    async def reload(self, config: Config) -> list[str]:
        """Go on with this configuration; the names of the settings that it changes in vain until a restart.

        What is being pulled goes on as it began. Raises StartError, and all stays as it was.
        """
        config, waiting = carried_over(self.config, config)
        pair = await self._pair(config)
        await self._generations.replace(config)
        self._changed()
        self._certificate.use(pair)
        self._connections.apply(config.server)
        self.store.apply(config.cache)
        self.webhook.apply(config.webhook)
        self.config = config
        return waiting

    async def _pair(self, config: Config) -> Pair | None:
        """The certificate for clients, and its key. Raises StartError."""
        try:
            return await read_pair(config.server)
        except CertificateError as error:
            raise StartError(f"[server] tls_certificate and tls_key: {error}") from error

    def status(self) -> dict[str, object]:
        """The document of /api/status."""
        now = self._clock.monotonic()
        return status_document(
            self.store, self.generation, self.report, self.metrics, now, started_at=self._started_at
        ) | {"workers": self._workers().running}

    def _status_now(self) -> dict[str, object]:
        """Differs each second, which tells those who look that the line is alive."""
        return self.status() | {"now": self._clock.time()}

    def _quota_without_time(self) -> dict[str, object]:
        """Differs when something has happened only."""
        return {name: part for name, part in self.report.quota().items() if name != "now"}

    def _build_webhook(self, config: Config) -> Webhook:
        return Webhook(
            config.webhook,
            gethostname(),
            lambda: gather_facts(self.generation, self.report, self.metrics),
            self.store.index,
            lambda: self.store.keeper_lock.held,
            self.metrics,
            self._clock,
        )

    def _answer(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """By the generation of this moment; no coroutine of its own, since every hit comes through here."""
        return self.generation.routes(request)

    def _repeat(self, request: bytes, client: str) -> bytes | None:
        """What the generation of this moment has just answered to the same bytes."""
        return self.generation.routes.repeat(request, client)

    def _workers(self) -> WorkerSample:
        """The processes that serve clients; this is one of them."""
        beside = len(self._desk) if self._desk is not None else 0
        return WorkerSample(1 + beside, self._crew.board.deaths if self._crew is not None else 0)

    async def _settle(self) -> None:
        """All that was counted until now is counted here."""
        if self._desk is not None:
            await self._desk.flush()

    def _count(self, content: bytes) -> None:
        """What a process beside this one has counted."""
        add_counts(
            content,
            lambda batch: add(batch, self.metrics, self.quotas.traffic, self.store.usage),
            self.generation.log,
            self.metrics.connection_refused,
        )

    def _client_place(self) -> tuple[str, int]:
        """Scheme and port of the client listener."""
        place = urlsplit(self.client_url)
        return place.scheme, place.port or 0

    def _admin_runner(self, shared: Shared) -> web.AppRunner:
        house = build_house(shared, lambda: self.generation.windows())
        api = AdminApi(house, lambda: self.config.admin.changes)
        quota = QuotaApi(self.report, lambda: self.generation.explainer)
        setup = SetupApi(self._client_place, lambda: list(self.generation.upstreams))
        rooms = (api, quota, setup, self._feed)
        routes = [route for room in rooms for route in room.routes()]
        application = admin_application(self.metrics, lambda: self._ready, self.status, self._settle, routes)
        application.on_shutdown.append(self._feed.aclose)
        return web.AppRunner(application, access_log=None, shutdown_timeout=0.5)

    async def _drain(self) -> None:
        """No new connections; what runs may end, within the bound."""
        draining = asyncio.ensure_future(self._all_served())
        try:
            await self._hand_over()
            await asyncio.wait([draining], timeout=self.config.server.shutdown_timeout)
        finally:
            draining.cancel()
            await asyncio.wait([draining])

    async def _all_served(self) -> None:
        """No request is being answered, and no process is left that would ask us more."""
        await self._generations.drain()
        if self._desk is not None:
            await self._desk.deserted()

    async def _hand_over(self) -> None:
        """Close the door to clients; where another process has one there too, nobody is left in between."""
        await self._admins.prefer_newest()
        if await self._clients.prefer_newest():
            await asyncio.sleep(HANDING_OVER_SECONDS)
        await self._clients.close_door()
        if self._clients.is_lasting:
            await asyncio.sleep(HANDING_OVER_SECONDS)


def _nothing() -> None:
    """Nobody else wants to know."""
