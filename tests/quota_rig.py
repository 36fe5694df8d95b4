"""What the tests of quotas by the door share: a cache whose governor has its own rules, and what it says of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from proxy.config import QuotaOptions, ServerOptions
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub

APP = "acme/app"


@asynccontextmanager
async def governed(
    hub: FakeHub, directory: Path, server: ServerOptions | None = None, **rules: Any
) -> AsyncIterator[CacheRig]:
    """A cache of this hub with these settings of [quota]; it asks nobody by itself unless `probe` says so."""
    options: dict[str, Any] = {"quota": QuotaOptions(**{"probe": 0.0, **rules})}
    if server is not None:
        options["server"] = server
    async with CacheRig(hub.url, directory / "cache", options=options) as cache:
        yield cache


async def api(cache: CacheRig, path: str) -> dict[str, Any]:
    """A document of the admin listener."""
    async with aiohttp.ClientSession() as session, session.get(cache.app.admin_url + path) as response:
        document: dict[str, Any] = await response.json()
    return document | {"status": response.status} if response.status != 200 else document


async def hub_of(cache: CacheRig) -> dict[str, Any]:
    """What /api/quota says of the only upstream."""
    (upstream,) = (await api(cache, "/api/quota"))["upstreams"]
    found: dict[str, Any] = upstream
    return found


async def events(cache: CacheRig) -> list[tuple[str, str]]:
    """Kind and text of what has happened, newest first."""
    cache.app.quotas.watch.look()
    return [(each["kind"], each["text"]) for each in (await api(cache, "/api/quota"))["events"]]


async def spend_to(cache: CacheRig, hub: FakeHub, remaining: int) -> None:
    """Leave this many pulls, and let the cache hear of it, for free."""
    hub.set_remaining(remaining)
    hub.add_image(APP, "heard-of")
    await cache.head_manifest(APP, "heard-of")
    cache.clock.advance(cache.tags + 1)
    await cache.head_manifest(APP, "heard-of")
