"""Large bodies are received in a thread, from the connection's own socket: only where nothing frames them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from proxy.oci.names import Digest
from tests.blob_rig import KIB, MIB, add_layer
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub

REPOSITORY = "library/app"


@pytest.mark.parametrize("cut", [None, 700 * KIB], ids=["whole", "resumed"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_body_is_right_however_it_is_framed(
    hub: FakeHub, cache: CacheRig, monkeypatch: pytest.MonkeyPatch, chunked: bool, cut: int | None
) -> None:
    """A resumed one tells its size in Content-Range even where it comes in chunks."""
    monkeypatch.setattr("proxy.store.fills.source.FIRST_PAUSE_SECONDS", 0.001)
    layer = add_layer(hub, 4 * MIB)
    if chunked:
        hub.no_content_length(layer.digest)
    if cut is not None:
        hub.cut(layer.digest, cut)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == ({layer.digest}, {})


async def test_a_large_body_that_stalls_is_resumed_after_the_idle_time_out(hub: FakeHub, cache: CacheRig) -> None:
    await cache.stop()
    cache.idle_timeout = 0.3
    await cache.start()
    layer = add_layer(hub, 4 * MIB)
    gate = hub.hold(layer.digest, after_bytes=2 * MIB, times=1)

    reply = await cache.get_blob(REPOSITORY, layer.digest)
    gate.release()

    assert (reply.status, reply.body) == (200, layer.content)


async def test_a_stop_ends_a_transfer_that_waits_and_keeps_what_came(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub, 4 * MIB)
    hub.hold(layer.digest, after_bytes=2 * MIB)
    async with cache.open(f"/v2/{REPOSITORY}/blobs/{layer.digest}") as response:
        await response.content.readexactly(MIB)
        await hub.wait_held(layer.digest)
    await cache.stop()

    assert cache.partials_on_disk()[layer.digest] <= 2 * MIB
    hub.release()
    await cache.start()
    assert (await cache.get_blob(REPOSITORY, layer.digest)).body == layer.content


class HeldHash:
    """Takes nothing in until it may."""

    def __init__(self, digest: Digest, may: threading.Event) -> None:
        self._hash = hasher_of(digest)
        self._may = may

    def update(self, content: memoryview) -> None:
        assert self._may.wait(10)
        self._hash.update(content)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


hasher_of = Digest.hasher


async def test_readers_need_not_wait_until_what_came_is_hashed(
    hub: FakeHub, cache: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    may = threading.Event()
    monkeypatch.setattr(Digest, "hasher", lambda digest: HeldHash(digest, may))
    layer = add_layer(hub, 4 * MIB)
    async with cache.open(f"/v2/{REPOSITORY}/blobs/{layer.digest}") as response:
        try:
            begin = await asyncio.wait_for(response.content.readexactly(KIB), 5)
        finally:
            may.set()
        assert begin + await response.content.read() == layer.content
