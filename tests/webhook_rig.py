"""Somebody who takes alerts, and a cache that sends them there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from ssl import SSLContext
from typing import Any

import pytest
from aiohttp import web

from proxy.config import Secret, WebhookOptions
from proxy.webhook import keeper
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub

SECRET = "T0sEcReT/B0hIdDeN/xYz"
TOLD = "pullthrough_webhook_deliveries_total"
BAD = "PullthroughIntegrityFailure"
"""What `find_bad_content` raises, at once and for an hour."""

Answer = Callable[[web.Request], Awaitable[web.Response]]


def answer(status: int, text: str = "", **headers: str) -> Answer:
    """This status and body; headers with _ for -."""

    async def handler(request: web.Request) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, text=text, headers=named)

    return handler


async def hang(request: web.Request) -> web.Response:
    """Never answer."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError


async def close(request: web.Request) -> web.Response:
    """Break the connection instead of answering."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


class Receiver:
    """Takes messages at `url`. The next ones get the `answers`, all others 200."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[web.Request] = []
        self.messages: list[Any] = []
        self.answers: deque[Answer] = deque()

    @property
    def alerts(self) -> list[tuple[str, str]]:
        """Names and states of what was told, as JSON."""
        return [
            (alert["labels"]["alertname"], alert["status"]) for message in self.messages for alert in message["alerts"]
        ]

    async def take(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        self.messages.append(await request.json())
        return await (self.answers.popleft() if self.answers else answer(200, "ok"))(request)


@asynccontextmanager
async def receiving(ssl_context: SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver on loopback."""
    receiver, application = Receiver(), web.Application()
    application.router.add_post("/{path:.*}", receiver.take)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context).start()
        scheme, host = ("http", "127.0.0.1") if ssl_context is None else ("https", "localhost")
        receiver.url = f"{scheme}://{host}:{runner.addresses[0][1]}/services/{SECRET}"
        yield receiver
    finally:
        await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as running:
        yield running


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches look when the test has them do it, and at their start and end."""
    monkeypatch.setattr(keeper, "LOOK_SECONDS", 3600.0)


@pytest.fixture
async def watched(hub: FakeHub, tmp_path: Path, receiver: Receiver, by_hand: None) -> AsyncIterator[CacheRig]:
    """A cache that tells the receiver."""
    async with cache_of(hub, tmp_path, receiver) as running:
        yield running


def cache_of(hub: FakeHub, folder: Path, receiver: Receiver, **options: Any) -> CacheRig:
    webhook = WebhookOptions(**{"url": Secret(receiver.url), **options})
    return CacheRig(hub.url, folder / "cache", options={"webhook": webhook})


async def look(cache: CacheRig, *, after: float = 0.0) -> None:
    """Time passes, and the cache looks and tells."""
    cache.clock.advance(after)
    await cache.app.webhook.turn()


def find_bad_content(cache: CacheRig) -> None:
    """As a scrub does."""
    cache.app.metrics.integrity_failed("scrub")


async def told(cache: CacheRig) -> dict[str, float | None]:
    """What became of alerts."""
    return {each: await cache.metric(TOLD, outcome=each) for each in ("delivered", "failed", "dropped")}
