"""What the tests of blobs share: blobs to pull, clients that read piece by piece, and a look at what is left over."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from proxy.store.fills.progress import HELD_BACK_BYTES
from tests.cache_rig import CacheRig, Reply
from tests.eventually import eventually
from tests.fake_hub import FakeHub

REPOSITORY = "library/app"
KIB = 1024
MIB = 1024 * 1024


@dataclass(frozen=True)
class Layer:
    """A blob that a repository of the hub holds."""

    digest: str
    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def path(self) -> str:
        return path_of(REPOSITORY, self.digest)


def path_of(repository: str, digest: str) -> str:
    return f"/v2/{repository}/blobs/{digest}"


def add_layer(hub: FakeHub, size: int = MIB, *, repository: str = REPOSITORY, seed: int = 0) -> Layer:
    """A blob of this size in a repository."""
    digest = hub.add_synthetic_blob(size, seed)
    hub.link_blob(repository, digest)
    return Layer(digest, hub.content_of(digest).read(0, size))


async def read_until_broken(cache: CacheRig, path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """What a client gets of a body that never ends as it should."""
    received = bytearray()
    async with cache.open(path, headers) as response:
        assert response.status in (200, 206)
        with pytest.raises(aiohttp.ClientError):
            while chunk := await response.content.readany():
                received += chunk
    return bytes(received)


def assert_never_whole(received: bytes, layer: Layer) -> None:
    """Nothing of the last piece has arrived."""
    assert len(received) <= max(0, layer.size - HELD_BACK_BYTES)


async def partial_has(cache: CacheRig, digest: str, size: int) -> None:
    """Wait until so many bytes of a running fill are on disk."""
    await eventually(lambda: cache.partials_on_disk().get(digest) == size, label=f"{size} bytes are on disk")


async def stored(cache: CacheRig, digest: str) -> None:
    """Wait until the store has the blob, and no fill runs."""
    await eventually(lambda: digest in cache.blobs_on_disk(), label="the blob is stored")
    await no_fills(cache)


async def no_fills(cache: CacheRig) -> None:
    """Wait until no fill runs."""

    async def none_runs() -> bool:
        return not (await cache.status())["fills"]

    await eventually(none_runs)


async def readers(cache: CacheRig, digest: str, count: int) -> None:
    """Wait until the fill of this digest has so many readers."""

    async def has_that_many() -> bool:
        return [fill["readers"] for fill in await fills(cache) if fill["digest"] == digest] == [count]

    await eventually(has_that_many, label=f"the fill has {count} readers")


async def fills(cache: CacheRig) -> list[dict[str, Any]]:
    """The running fills."""
    found: list[dict[str, Any]] = (await cache.status())["fills"]
    return found


def open_store_files(cache: CacheRig) -> list[str]:
    """The blobs and partials that this process holds open."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
        if target.startswith((str(cache.directory / "blobs"), str(cache.directory / "partial"))):
            found.append(target)
    return found


async def nothing_left_open(cache: CacheRig) -> None:
    """Wait until no file of the store is open and no task of a fill is there."""
    await eventually(lambda: not open_store_files(cache), label="the files of the store are closed")
    await no_fills(cache)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("fill")]


def ranges_asked(hub: FakeHub, digest: str) -> list[str | None]:
    """The Range of every request to the CDN for this blob."""
    return [request.range for request in hub.requests if request.kind == "cdn" and request.reference == digest]


def small_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fills ask again at once."""
    monkeypatch.setattr("proxy.store.fills.source.FIRST_PAUSE_SECONDS", 0.001)


async def admit(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    """Let the cache know the repository already, so that faults meet nothing but the blob."""
    await cache.head_blob(REPOSITORY, layer.digest)
    hub.reset_counts()


async def broken_off(response: aiohttp.ClientResponse) -> None:
    """Read a body that does not end as it should."""
    with pytest.raises(aiohttp.ClientError):
        await response.read()


def assert_unavailable(reply: Reply) -> None:
    assert reply.status == 503
    assert json.loads(reply.body)["errors"][0]["code"] == "UNAVAILABLE"


async def assert_next_pull_succeeds(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    """Once nothing is wrong any more; and nothing is left over."""
    hub.heal()
    cache.clock.advance(120)
    reply = await cache.get_blob(REPOSITORY, layer.digest)
    assert (reply.status, reply.body) == (200, layer.content)
    await no_fills(cache)
    assert cache.blobs_on_disk() == {layer.digest}
    assert cache.partials_on_disk() == {}
    await nothing_left_open(cache)
    assert hub.violations == []
