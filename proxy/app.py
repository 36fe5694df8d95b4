"""The only place where objects are built, started and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import signal
import sqlite3
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, TextIO

from aiohttp import web

from proxy import __version__
from proxy.clock import Clock, SystemClock
from proxy.config import Address, Config, UpstreamOptions
from proxy.logs import configure_logging
from proxy.metrics import CacheSample, LimitSample, Metrics
from proxy.policy.negatives import Negatives
from proxy.policy.quota import Gate
from proxy.pull import Pull
from proxy.pull.admission import Doorkeeper
from proxy.pull.blobs import BlobPulls
from proxy.pull.catalog import Catalog
from proxy.pull.listings import Listings
from proxy.pull.manifests import Manifests
from proxy.pull.tags import Tags
from proxy.server.access_log import AccessLog
from proxy.server.admin import admin_application
from proxy.server.pump import Pump
from proxy.server.routes import Routes
from proxy.server.targets import Targets
from proxy.store.blobs import Blobs
from proxy.store.fills import Fills
from proxy.store.index import Index
from proxy.store.transfer import Transfers
from proxy.upstream.client import Upstream
from proxy.upstream.fallback import Registry

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS: Final = 75.0
"""Longer than the 30 s for which Go's clients keep idle connections, so that we never close one they reuse."""
DISK_THREADS: Final = 4
FILL_THREADS: Final = 8
TRANSFER_THREADS: Final = 32
"""Each has a buffer of 1 MiB. More large fills at a time are received on the event loop."""


class StartError(Exception):
    """The program cannot start; the message says what to do."""


class App:
    """One running cache. `await start()`, then `await stop()`; also an async context manager."""

    def __init__(self, config: Config, *, clock: Clock | None = None, access_log: TextIO | None = None) -> None:
        self.config = config
        self.metrics = Metrics(aliases=config.metrics.aliases, version=__version__)
        self._clock = clock or SystemClock()
        self._started_at = self._clock.monotonic()
        self._directory = config.cache.directory
        self._disk = ThreadPoolExecutor(DISK_THREADS, "disk")
        self._writers = ThreadPoolExecutor(FILL_THREADS, "fill")
        self._blobs = Blobs(self._directory, config.cache.memory, self._disk)
        self._index = Index(self._directory / "index.sqlite")
        self._transfers = Transfers(TRANSFER_THREADS)
        self._fills = Fills(self._blobs, self._index, self.metrics, self._writers, self._transfers)
        self._upstreams = {each.name: Upstream(each, self.metrics, self._clock) for each in config.upstreams}
        self._pull = self._build_pull()
        stream = access_log or sys.stderr
        self._access_log = AccessLog(stream, config.log.format) if config.log.access else None
        targets = Targets(self._upstreams, setup=config.server.setup, catalog=config.server.catalog)
        self._routes = Routes(targets, self._pull, Pump(), self.metrics, self._access_log)
        self._ready = False
        self._closing = AsyncExitStack()
        self.client_url = ""
        self.admin_url = ""

    def _build_pull(self) -> Pull:
        config, clock, negatives = self.config, self._clock, Negatives()
        door = Doorkeeper(config.access.private, config.access.remember, self._index, clock)
        manifests = Manifests(self._blobs, self._index, negatives, clock)
        tags = Tags(manifests, self._index, negatives, self.metrics, clock)
        blobs = BlobPulls(self._blobs, self._fills, self._index, negatives, clock)
        listings = Listings(negatives, clock)
        registries = {each.name: self._registry(each) for each in config.upstreams}
        catalog = Catalog(tuple(registries), self._index, door)
        return Pull(registries, door, tags, manifests, blobs, listings, catalog)

    def _registry(self, options: UpstreamOptions) -> Registry:
        fallbacks = [self._upstreams[name] for name in options.fallbacks]
        window = self.config.freshness.tags if options.tags is None else options.tags
        return Registry(self._upstreams[options.name], fallbacks, window, self.metrics, self._clock)

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
        loop = asyncio.get_running_loop()
        for executor in (self._disk, self._writers):
            self._closing.callback(executor.shutdown)
        self._closing.callback(self._transfers.close)
        await loop.run_in_executor(self._disk, self._open_store, loop)
        for upstream in self._upstreams.values():
            await _start_upstream(upstream)
            self._closing.push_async_callback(upstream.aclose)
        self._closing.push_async_callback(self._fills.aclose)
        self._closing.push_async_callback(self._pull.aclose)
        if self._access_log is not None:
            self._closing.push_async_callback(self._access_log.aclose)
        self.metrics.watch_fills(lambda: len(self._fills))
        self.metrics.watch_limits(self._limit_samples)
        self.metrics.watch_cache(self._cache_sample)
        self.admin_url = await self._listen_for_admins()  # First, so that it closes last: /readyz tells of the stop.
        self.client_url = await self._listen_for_clients()
        self._ready = True

    async def stop(self) -> None:
        """Stop accepting, let running responses end within `server.shutdown_timeout`, leave the store clean."""
        self._ready = False
        await self._closing.aclose()

    def _open_store(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._closing.callback(_lock(self._directory / "lock").close)
            self._blobs.prepare()
            self._closing.callback(self._index.close)
            self._index.open(loop)
        except (OSError, sqlite3.Error) as error:
            raise StartError(
                f"cannot use the cache folder {self._directory}: {error}. Choose another with [cache] directory, or "
                "PULLTHROUGH_CACHE__DIRECTORY in the environment, or make this one writable for this user."
            ) from error

    async def _listen_for_clients(self) -> str:
        server = web.Server(
            self._routes, access_log=None, handler_cancellation=True, keepalive_timeout=KEEP_ALIVE_SECONDS
        )
        runner = web.ServerRunner(server, shutdown_timeout=0.5)
        url = await self._listen(runner, self.config.server.listen, "[server] listen")
        self._closing.push_async_callback(self._drain, runner)
        return url

    async def _listen_for_admins(self) -> str:
        application = admin_application(self.metrics, lambda: self._ready, self.status)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        return await self._listen(runner, self.config.admin.listen, "[admin] listen")

    async def _listen(self, runner: web.BaseRunner, address: Address, setting: str) -> str:
        await runner.setup()
        self._closing.push_async_callback(runner.cleanup)
        try:
            await web.TCPSite(runner, address.host, address.port, backlog=1024).start()
        except OSError as error:
            raise StartError(
                f"cannot listen on {address}: {error.strerror or error}. If another program uses it, stop that or "
                f"choose another address with {setting}."
            ) from error
        host, port = runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def _drain(self, runner: web.BaseRunner) -> None:
        """No new connections; what runs may end, within the bound."""
        for site in list(runner.sites):
            await site.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.server.shutdown_timeout):
                await self._routes.drain()

    def status(self) -> dict[str, object]:
        """The document of /api/status."""
        now = self._clock.monotonic()
        cache = self._cache_sample()
        return {
            "version": __version__,
            "uptime_seconds": round(now - self._started_at, 3),
            "listen": str(self.config.server.listen),
            "cache": {
                "directory": str(self._directory),
                "blobs": cache.blobs,
                "bytes": cache.bytes,
                "memory_bytes": cache.memory_bytes,
            },
            "counters": self.metrics.snapshot(),
            "upstreams": [self._upstream_status(options, now) for options in self.config.upstreams],
            "fills": [
                {
                    "digest": str(fill.digest),
                    "repository": str(fill.repository),
                    "received": fill.progress.received,
                    "size": fill.progress.size,
                    "readers": fill.readers,
                    "seconds": round(fill.seconds, 3),
                }
                for fill in self._fills
            ],
        }

    def _upstream_status(self, options: UpstreamOptions, now: float) -> dict[str, object]:
        upstream = self._upstreams[options.name]
        quota = upstream.limits.quota
        return {
            "name": options.name,
            "url": options.url,
            "account": options.username,
            "credentials": upstream.credentials_state(),
            "quota": quota
            and {
                "limit": quota.limit,
                "remaining": quota.remaining,
                "window_seconds": quota.window,
                "observed_seconds_ago": round(now - quota.observed_at, 3),
            },
            "pulls_closed_seconds": upstream.limits.closed_for(Gate.PULLS, now),
            "requests_closed_seconds": upstream.limits.closed_for(Gate.REQUESTS, now),
        }

    def _limit_samples(self) -> Iterator[LimitSample]:
        for options in self.config.upstreams:
            quota = self._upstreams[options.name].limits.quota
            if quota is not None:
                account = options.username or "anonymous"
                yield LimitSample(options.name, account, quota.limit, quota.remaining, quota.window)

    def _cache_sample(self) -> CacheSample:
        return CacheSample(self._index.blob_count, self._index.blob_bytes, self._blobs.memory_bytes)


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code. Raises StartError."""
    configure_logging(config.log.level, config.log.format)
    asyncio.run(_serve(config))
    return 0


async def _serve(config: Config) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with App(config) as app:
        log.info("clients: %s  metrics and status: %s", app.client_url, app.admin_url)
        await stopped.wait()
        log.info("stopping: running responses may end within %g s", config.server.shutdown_timeout)


async def _start_upstream(upstream: Upstream) -> None:
    try:
        await upstream.start()
    except OSError as error:
        raise StartError(f"cannot use the certificates (ca) of upstream {upstream.name}: {error}") from error


def _lock(path: Path) -> TextIO:
    """An exclusive lock for as long as the file is open: two programs that write one partial could spoil it."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise OSError("another pullthrough uses it") from error
    return file
