"""A process that serves clients beside the host, and asks it what to answer (`proxy.workers`)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from aiohttp import web

from proxy.app.crew import Crew
from proxy.app.errors import StartError
from proxy.app.listener import HANDING_OVER_SECONDS, Listener, Opened
from proxy.certificates import CertificateError
from proxy.clock import Clock, SystemClock
from proxy.config import Config
from proxy.server.certificate import Certificate, Pair, read_pair
from proxy.server.connections import Connections
from proxy.server.memo import Memo
from proxy.server.pump import Pump
from proxy.server.repeats import Repeats
from proxy.workers.counts import CountedLog, Counts
from proxy.workers.line import Line
from proxy.workers.relay import Relay


class Server:
    """`await start()`, then `await stop()`. `number` is its place on the board; `opened` are the clients' sockets."""

    def __init__(self, config: Config, crew: Crew, number: int, opened: Opened, clock: Clock | None = None) -> None:
        self.config = config
        self._counts = Counts(lambda: self._line.report())
        self._repeats = Repeats(self._counts.answered)
        self._line = Line(crew.address, self._counted)
        self._board = crew.board
        self._clock = clock or SystemClock()
        self._relay = Relay(self._line, Pump(), self._counts.connection_refused, self._edition, self._memo(config))
        self._certificate = Certificate()
        self._connections = Connections(
            self._relay,
            self._relay.repeat,
            self._counts,
            config.server,
            certificate=self._certificate,
            census=crew.board.seat(number),
        )
        runner = web.ServerRunner(self._connections, shutdown_timeout=0.5)
        self._clients = Listener(runner, config.server.listen, "[server] listen", config.server.reuse_port, opened)
        self._closing = AsyncExitStack()

    @property
    def url(self) -> str:
        """Where clients are served, once started."""
        return self._clients.url.replace("http", self.config.server.scheme, 1)

    async def start(self) -> None:
        """Serve clients; the host need not be there yet. Raises StartError."""
        try:
            self._certificate.use(await self._pair(self.config))
            self._closing.callback(self._counts.close)
            self._closing.callback(self._line.close)
            self._line.start()
            self._closing.push_async_callback(self._certificate.aclose)
            await self._certificate.start()
            self._closing.push_async_callback(self._clients.aclose)
            await self._clients.start()
            self._closing.push_async_callback(self._drain)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop accepting, and let running responses end within `server.shutdown_timeout`."""
        await self._closing.aclose()

    async def reload(self, config: Config) -> None:
        """Go on with this configuration, as the host does. Raises StartError, and all stays as it was."""
        pair = await self._pair(config)
        self._certificate.use(pair)
        self._connections.apply(config.server)
        self._relay.memo = self._memo(config)
        self.config = config

    def _memo(self, config: Config) -> Memo | None:
        if not config.server.memo:
            return None
        log = CountedLog(config.log.format, self._counts.log) if config.log.access else None
        return Memo(self._edition, self._repeats, log, self._clock)

    def _edition(self) -> int:
        return self._board.edition

    def _counted(self) -> list[bytes]:
        self._repeats.settle()
        return self._counts.take()

    async def _drain(self) -> None:
        draining = asyncio.ensure_future(self._relay.drain())
        try:
            if await self._clients.prefer_newest():
                await asyncio.sleep(HANDING_OVER_SECONDS)
            await self._clients.close_door()
            await asyncio.wait([draining], timeout=self.config.server.shutdown_timeout)
        finally:
            draining.cancel()
            await asyncio.wait([draining])

    async def _pair(self, config: Config) -> Pair | None:
        try:
            return await read_pair(config.server)
        except CertificateError as error:
            raise StartError(f"[server] tls_certificate and tls_key: {error}") from error
