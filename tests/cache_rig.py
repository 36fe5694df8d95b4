"""A real cache on loopback for tests by the door: HTTP in; HTTP, disk, metrics and log out."""

from __future__ import annotations

import asyncio
import io
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from multidict import CIMultiDictProxy
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from proxy.app import App
from proxy.app.crew import gather_crew
from proxy.app.listener import Opened
from proxy.app.server import Server
from proxy.app.sockets import open_sockets
from proxy.config import (
    AccessOptions,
    Address,
    AdminOptions,
    CacheOptions,
    Config,
    FreshnessOptions,
    LogOptions,
    Secret,
    ServerOptions,
    Share,
    UpstreamOptions,
)
from tests.eventually import eventually

ANY_PORT = Address("127.0.0.1", 0)
BESIDE = "TEST_SERVED_BESIDE"
"""In the environment: clients are served by another process than the cache, wherever a test does not say otherwise."""


class Clock:
    """Both clocks of the program, set by the test."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass(frozen=True)
class Reply:
    """A whole response."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def cache_status(self) -> str:
        return self.headers.get("Cache-Status", "")


@dataclass
class CacheRig:
    """A cache that can be started, stopped, and started again on the same folder.

    `username` None: an upstream without an account. `options` are keyword arguments of `Config` that replace ours.
    `trust` is what our client makes of the cache's certificate, if it has one. With `beside` clients are served as by a
    process beside the cache: all that it says goes by the same sockets, only that both run in this event loop.
    """

    upstream_url: str
    directory: Path
    clock: Clock = field(default_factory=Clock)
    username: str | None = "alice"
    password: str = "dckr_pat_test"
    private: Any = "deny"
    tags: float = 300.0
    idle_timeout: float = 5.0
    options: Mapping[str, Any] = field(default_factory=dict)
    trust: ssl.SSLContext | bool = True
    log: io.StringIO = field(default_factory=io.StringIO)
    beside: bool = field(default_factory=lambda: bool(os.environ.get(BESIDE)))

    server: Server | None = None
    app: App = field(init=False)
    _session: aiohttp.ClientSession = field(init=False)

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self.trust)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._session.close()
        await self.stop()

    def config(self) -> Config:
        upstream = UpstreamOptions(
            name="docker.io",
            url=self.upstream_url,
            username=self.username,
            password=Secret(self.password) if self.username else None,
            connect_timeout=2.0,
            idle_timeout=self.idle_timeout,
        )
        config = Config(
            server=ServerOptions(listen=ANY_PORT, shutdown_timeout=5.0),
            admin=AdminOptions(listen=ANY_PORT),
            cache=CacheOptions(directory=self.directory, min_free=Share(0), scrub_rate=0),
            freshness=FreshnessOptions(tags=self.tags),
            access=AccessOptions(private=self.private),
            log=LogOptions(format="json"),
            upstreams=(upstream,),
        )
        return replace(config, **self.options)

    async def start(self) -> None:
        config = self.config()
        crew = gather_crew(2) if self.beside else None
        self.app = App(config, clock=self.clock, access_log=self.log, crew=crew)
        await self.app.start()
        if crew is not None:
            sockets = open_sockets(ANY_PORT.host, ANY_PORT.port, reuse_port=False)
            self.server = Server(config, crew, 1, Opened(sockets, lasting=False), self.clock)
            await self.server.start()

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop()
            self.server = None
        await self.app.stop()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    @property
    def url(self) -> str:
        return self.app.client_url if self.server is None else self.server.url

    async def send(
        self, method: str, path: str, headers: Mapping[str, str] | list[tuple[str, str]] | None = None
    ) -> Reply:
        """One request, and its whole response. `path` is sent as it is written."""
        url = URL(self.url + path, encoded=True)
        async with self._session.request(method, url, headers=headers, allow_redirects=False) as response:
            reply = Reply(response.status, response.headers, await response.read())
        await self.settled()
        return reply

    async def settled(self) -> None:
        """Wait until blobs whose last byte was sent have their name too: that comes a moment later."""
        await eventually(lambda: not any(fill.progress.ended for fill in self.app.store.fills), label="fills settled")

    def open(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        """A response whose body the test reads itself: `async with rig.open(path) as response`."""
        return self._session.get(self.url + path, headers=headers)

    async def get_manifest(self, repository: str, reference: object, *accept: str, **headers: str) -> Reply:
        lines = [*(("Accept", line) for line in accept), *headers.items()]
        return await self.send("GET", f"/v2/{repository}/manifests/{reference}", lines)

    async def head_manifest(self, repository: str, reference: object, *accept: str) -> Reply:
        return await self.send("HEAD", f"/v2/{repository}/manifests/{reference}", [("Accept", line) for line in accept])

    async def get_blob(self, repository: str, digest: object, **headers: str) -> Reply:
        return await self.send("GET", f"/v2/{repository}/blobs/{digest}", headers)

    async def head_blob(self, repository: str, digest: object) -> Reply:
        return await self.send("HEAD", f"/v2/{repository}/blobs/{digest}")

    async def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Every sample of /metrics by name and labels."""
        async with self._session.get(f"{self.app.admin_url}/metrics", headers={"Accept": "text/plain"}) as response:
            text = await response.text()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def metric(self, name: str, **labels: str) -> float | None:
        """The sum of the samples with this name and at least these labels; None if there is none."""
        wanted = labels.items()
        found = [value for (each, has), value in (await self.metrics()).items() if each == name and wanted <= has]
        return sum(found) if found else None

    async def status(self) -> dict[str, Any]:
        async with self._session.get(f"{self.app.admin_url}/api/status") as response:
            document: dict[str, Any] = await response.json()
        return document

    def blobs_on_disk(self) -> set[str]:
        """The digests that have a name in the store."""
        found = (self.directory / "blobs").glob("*/*/*")
        return {f"{path.parent.parent.name}:{path.name}" for path in found}

    def partials_on_disk(self) -> dict[str, int]:
        """The sizes of what unfinished fills have left, by digest."""
        found = (self.directory / "partial").glob("sha*-*")
        return {path.name.replace("-", ":", 1): path.stat().st_size for path in found}


async def gather(*requests: Any) -> list[Any]:
    """The results of requests that run at once."""
    return list(await asyncio.gather(*requests))
