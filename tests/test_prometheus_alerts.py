"""Every alert of config/prometheus fires and goes again, in a real Prometheus that scrapes a real process of ours.

promtool tests the rules with series that we made up (test_prometheus_rules.py); here the causes are real.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from yarl import URL

from tests.fake_hub import FakeHub, Image
from tests.ports import free_port
from tests.prometheus_rig import RULES, Prometheus, hurried, prometheus
from tests.service_rig import service

APP = "acme/app"
WINDOW = 8
"""Seconds of the pull limit: what was spent is forgotten after so long."""
LARGE = 3 * 2**20
CONFIG = """
[server]
listen = "127.0.0.1:{clients}"
[admin]
listen = "127.0.0.1:{admins}"
[cache]
directory = "{folder}/cache"
max_size = "2MiB"
min_free = "0B"
[freshness]
tags = "1ms"
[log]
format = "json"
"""
UPSTREAM = """
[[upstream]]
name = "{name}"
url = "{url}"
username = "alice"
password_file = "{folder}/{name}.pat"
"""
ORDERLY, REFUSING, FLOODED, AWAY = "docker.io", "refusing.example", "flooded.example", "away.example"


@dataclass
class Site:
    """A cache in front of four registries, of which each has a trouble of its own, and the images in them."""

    folder: Path
    session: aiohttp.ClientSession
    hubs: dict[str, FakeHub]
    clients: int = field(default_factory=free_port)
    admins: int = field(default_factory=free_port)
    images: dict[str, Image] = field(default_factory=dict)
    large: str = ""

    def prepare(self) -> Path:
        """Fill the registries, and write the configuration of the cache."""
        config = CONFIG.format(clients=self.clients, admins=self.admins, folder=self.folder)
        for name, hub in self.hubs.items():
            self.images[name] = hub.add_image(APP, "latest")
            self.write_token(name, hub.pat)
            config += UPSTREAM.format(name=name, url=hub.url, folder=self.folder)
        self.images["spare"] = self.hubs[ORDERLY].add_image(APP, "spare")
        self.large = self.hubs[ORDERLY].add_synthetic_blob(LARGE)
        self.hubs[ORDERLY].link_blob(APP, self.large)
        self.write_token(REFUSING, "revoked")
        path = self.folder / "pullthrough.toml"
        path.write_text(config)
        return path

    def write_token(self, name: str, token: str) -> None:
        """Give the cache this access token for one of them."""
        (self.folder / f"{name}.pat").write_text(token)

    async def ask(self, name: str, what: str = "manifests/latest") -> int:
        """The status of what a client gets, in whole."""
        url = URL(f"http://127.0.0.1:{self.clients}/v2/{APP}/{what}?ns={name}", encoded=True)
        async with self.session.get(url) as response:
            await response.read()
            return response.status

    async def scrub(self) -> None:
        """Have everything read again that is stored."""
        async with self.session.post(f"http://127.0.0.1:{self.admins}/api/scrub", json={}) as response:
            assert response.status == 202, await response.text()

    def spoil(self) -> None:
        """Change a byte on the disk of the cache."""
        digest = self.images[ORDERLY].config.removeprefix("sha256:")
        (stored,) = (self.folder / "cache" / "blobs" / "sha256").glob(f"*/{digest}")
        stored.chmod(0o600)
        stored.write_bytes(b"!" + stored.read_bytes()[1:])


@dataclass
class Clients:
    """They ask every registry again and again; for what may be changed at any time."""

    site: Site
    misses: bool = False
    too_large: bool = False
    _asked: int = 0

    async def run(self) -> None:
        """Until cancelled."""
        held = f"blobs/{self.site.images[ORDERLY].config}"
        while True:
            for name in self.site.hubs:
                await self.site.ask(name)
            await self.site.ask(ORDERLY, "manifests/spare")
            await self.site.ask(ORDERLY, f"blobs/{self.site.large}" if self.too_large else held)
            for _ in range(4):
                await self.site.ask(ORDERLY, self._new_blob() if self.misses else held)
            await asyncio.sleep(0.1)

    def _new_blob(self) -> str:
        self._asked += 1
        hub = self.site.hubs[ORDERLY]
        digest = hub.add_blob(f"new {self._asked}".encode())
        hub.link_blob(APP, digest)
        return f"blobs/{digest}"


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    """All is well at first, but for a token that was revoked."""
    async with AsyncExitStack() as stack:
        hubs = {name: await stack.enter_async_context(FakeHub()) for name in (ORDERLY, REFUSING, FLOODED, AWAY)}
        hubs[ORDERLY].rate_limit = (1000, WINDOW)
        for name in (REFUSING, FLOODED, AWAY):
            hubs[name].rate_limit = None
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Site(folder, session, hubs)


@asynccontextmanager
async def asking(clients: Clients) -> AsyncIterator[None]:
    """These clients are there until the end."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(clients.run())
        yield
        task.cancel()


async def trouble(where: Site, clients: Clients, watch: Prometheus) -> None:
    """Make everything go wrong that can while the cache runs, and see that each is told of."""
    hubs, orderly = where.hubs, where.hubs[ORDERLY]
    await watch.fires("UpstreamRefusesCredentials")
    await hubs[AWAY].gone()
    hubs[FLOODED].abuse_limit(retry_after=1)
    clients.misses = clients.too_large = True
    orderly.set_remaining(50)
    await watch.fires("PullQuotaLow", "PullQuotaBypassSuspected", "PullQuotaUsedUpSoon", "UpstreamRequestLimitReached")
    orderly.set_remaining(0)
    orderly.untag(APP, "spare")
    where.spoil()
    await where.scrub()
    await watch.fires("ImageVanishedUpstream", "PullthroughIntegrityFailure")
    await watch.fires("PullQuotaExhausted", "UpstreamUnreachable", "PullthroughHitRatioFell", "PullthroughDiskFull")


async def relief(where: Site, clients: Clients) -> None:
    """Make all of it good again."""
    orderly, refusing = where.hubs[ORDERLY], where.hubs[REFUSING]
    await where.hubs[AWAY].back()
    where.hubs[FLOODED].heal()
    refusing.unlock_logins()
    where.write_token(REFUSING, refusing.pat)
    refusing.expire_tokens()
    clients.misses = clients.too_large = False
    orderly.set_remaining(1000)
    orderly.tag(APP, "spare", where.images["spare"].digest)


def all_alerts() -> set[str]:
    return set(re.findall(r"- alert: (\w+)", RULES.read_text()))


async def test_every_alert_fires_and_goes_again(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        where = await stack.enter_async_context(site(tmp_path))
        clients = Clients(where)
        config = where.prepare()
        rules, target = hurried(RULES.read_text()), f"127.0.0.1:{where.admins}"
        watch = await stack.enter_async_context(prometheus(tmp_path, [target], rules))
        async with service(config, environ={}), asking(clients):
            await trouble(where, clients, watch)
            await relief(where, clients)
            await watch.resolves(*all_alerts())

        await watch.fires("PullthroughDown")
        async with service(config, environ={}):
            await watch.resolves("PullthroughDown")
    assert watch.fired == all_alerts()
