"""What the tests of fallbacks share: a cache of a hub in whose stead a mirror is asked, and what can befall the hub."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from proxy.config import Secret, UpstreamOptions
from tests.blob_rig import KIB, small_pauses
from tests.cache_rig import CacheRig, Reply
from tests.fake_hub import FakeHub, Image

APP = "acme/app"
MIRROR = "mirror.gcr.io"
LAYER = bytes(range(256)) * 4 * KIB


def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow upstream is soon given up."""
    monkeypatch.setattr("proxy.upstream.fallback.PATIENCE_SECONDS", 0.3)
    small_pauses(monkeypatch)


def mirrored(hub: FakeHub, mirror: FakeHub, directory: Path, idle_timeout: float = 60.0) -> CacheRig:
    """A cache of the hub, with an account there; the mirror is asked in its stead, anonymously."""
    upstreams = (
        UpstreamOptions(
            name="docker.io",
            url=hub.url,
            username="alice",
            password=Secret("dckr_pat_test"),
            fallbacks=(MIRROR,),
            idle_timeout=idle_timeout,
        ),
        UpstreamOptions(name=MIRROR, url=mirror.url),
    )
    return CacheRig(hub.url, directory, options={"upstreams": upstreams})


def both(hub: FakeHub, mirror: FakeHub, tag: str = "latest", layer: bytes = LAYER) -> Image:
    """An image that the mirror has too."""
    image = hub.add_image(APP, tag, [layer])
    assert mirror.add_image(APP, tag, [layer]) == image
    return image


async def hang(hub: FakeHub) -> None:
    hub.hang("any")


async def fail(hub: FakeHub) -> None:
    hub.fail("any", 502)


async def garbage(hub: FakeHub) -> None:
    hub.garbage("any")


async def abuse(hub: FakeHub) -> None:
    hub.abuse_limit(retry_after=600)


TROUBLES: dict[str, Callable[[FakeHub], Awaitable[None]]] = {
    "gone": lambda hub: hub.gone(),
    "hanging": hang,
    "5xx": fail,
    "no HTTP": garbage,
    "request limit": abuse,
}


def mark(reply: Reply) -> tuple[bool, bool]:
    """Whether Warning names the fallback, and whether Cache-Status tells of one."""
    return MIRROR in reply.headers.get("Warning", ""), "detail=fallback" in reply.cache_status


def error(reply: Reply) -> tuple[int, str]:
    return reply.status, json.loads(reply.body)["errors"][0]["code"]
