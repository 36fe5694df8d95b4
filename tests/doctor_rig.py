"""A set-up for the doctor to look at: a hub, a cache that runs, and the clients' settings below a root of its own."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from proxy.clock import SystemClock
from proxy.config import Address, Config, UpstreamOptions
from proxy.doctor.cache import RunningCache
from proxy.doctor.case import Case
from proxy.doctor.examination import examine
from proxy.doctor.findings import Finding, State
from proxy.doctor.image import CANARY, Image
from proxy.doctor.judge.account import PROBE
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub

Findings = dict[str, Finding]


def address_of(url: str) -> Address:
    parts = URL(url)
    assert parts.host and parts.port
    return Address(parts.host, parts.port)


def stock(hub: FakeHub) -> None:
    """What the doctor asks Docker Hub for."""
    hub.add_image(PROBE, "latest")
    hub.add_image(CANARY, "latest")


@dataclass
class SetUp:
    """A machine with a cache on it."""

    hub: FakeHub
    cache: CacheRig
    root: Path
    """Where the clients' /etc is; short, since sockets are in it."""
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> Config:
        """The configuration of the running cache, with the ports that it got."""
        config, app = self.cache.config(), self.cache.app
        return replace(
            config,
            server=replace(config.server, listen=address_of(app.client_url)),
            admin=replace(config.admin, listen=address_of(app.admin_url)),
        )

    def case(self, **changes: Any) -> Case:
        """What the doctor is given; `changes` are of `Config`."""
        config = replace(self.config, **changes)
        return case_of(config, self.root)

    async def examine(self, **changes: Any) -> Findings:
        """The findings of all checks, by their names."""
        return await findings(self.case(**changes))

    def upstream(self, **changes: Any) -> tuple[UpstreamOptions, ...]:
        """The upstream with changes."""
        return (replace(self.config.upstreams[0], **changes),)

    def install(self, program: str) -> None:
        """Let a program be there."""
        path = self.root / "usr/bin" / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def write(self, path: str, text: str) -> Path:
        """A file below the root."""
        written = self.root / path
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(text)
        return written

    def daemon_json(self, *mirrors: str) -> None:
        self.write("etc/docker/daemon.json", json.dumps({"registry-mirrors": mirrors}))


def case_of(config: Config, root: Path | None, url: str | None = None, canary: str | None = CANARY) -> Case:
    return Case(
        config=config,
        cache=RunningCache(config.server.listen, url),
        clock=SystemClock(),
        canary=Image.parse(canary) if canary else None,
        root=root,
    )


async def findings(case: Case) -> Findings:
    return {result.name: result.finding async for result in examine(case)}


def wrong(found: Findings) -> dict[str, str]:
    """What failed, with its text."""
    return {name: finding.text for name, finding in found.items() if finding.state is State.FAILED}


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: those of sockets have at most 107 characters."""
    path = Path(tempfile.mkdtemp(prefix="pt-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def healthy(hub: FakeHub, cache: CacheRig, short: Path) -> AsyncIterator[SetUp]:
    """All is well: an account, a cache that runs, and a dockerd that uses it."""
    stock(hub)
    setup = SetUp(hub, cache, short)
    setup.install("dockerd")
    setup.daemon_json(cache.url)
    async with dockerd(short, lambda: [f"{cache.url}/"]):
        yield setup


@asynccontextmanager
async def dockerd(root: Path, mirrors: Callable[[], list[str]]) -> AsyncIterator[None]:
    """The part of dockerd that answers GET /info on its socket; it writes mirrors with a slash at their end."""

    async def info(request: web.Request) -> web.Response:
        return web.json_response({"RegistryConfig": {"Mirrors": mirrors()}, "ServerVersion": "29.0.0"})

    application = web.Application()
    application.add_routes([web.get("/info", info)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        (root / "run").mkdir(exist_ok=True)
        await web.UnixSite(runner, str(root / "run/docker.sock")).start()
        yield
    finally:
        await runner.cleanup()
