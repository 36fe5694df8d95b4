"""So many blobs are fetched at a time; others wait for their turn, but not for ever, and not for nobody."""

from __future__ import annotations

import asyncio

import pytest

from proxy.oci.names import Digest
from tests.blob_rig import KIB, REPOSITORY, Layer, add_layer, assert_unavailable, nothing_left_open, readers
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.room_rig import limit


@pytest.fixture
async def two(hub: FakeHub, cache: CacheRig) -> list[Layer]:
    """Two blobs, one place, and upstream does not send."""
    await limit(cache, max_fills=1)
    layers = [add_layer(hub, 200 * KIB, seed=seed) for seed in range(2)]
    for layer in layers:
        await cache.head_blob(REPOSITORY, layer.digest)
        hub.hold(layer.digest, 1000)
    return layers


async def test_a_fill_waits_for_its_turn(hub: FakeHub, cache: CacheRig, two: list[Layer]) -> None:
    first = asyncio.create_task(cache.get_blob(REPOSITORY, two[0].digest))
    await hub.wait_held(two[0].digest)
    second = asyncio.create_task(cache.get_blob(REPOSITORY, two[1].digest))
    await readers(cache, two[1].digest, 1)
    for _ in range(20):  # Time enough for it to be asked for, if it were.
        await cache.head_blob(REPOSITORY, two[1].digest)
    asked = hub.count("GET", "blob", two[1].digest)
    hub.release()

    assert ((await first).body, (await second).body) == (two[0].content, two[1].content)
    assert asked == 0
    assert cache.blobs_on_disk() == {each.digest for each in two}


async def test_one_that_waits_too_long_is_answered_503(
    hub: FakeHub, cache: CacheRig, two: list[Layer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.store.fills.TURN_SECONDS", 0.1)
    first = asyncio.create_task(cache.get_blob(REPOSITORY, two[0].digest))
    await hub.wait_held(two[0].digest)

    refused = await cache.get_blob(REPOSITORY, two[1].digest)
    hub.release()
    await first
    afterwards = await cache.get_blob(REPOSITORY, two[1].digest)

    assert_unavailable(refused)
    assert refused.headers["Retry-After"] == "5"
    assert b"fetching as many blobs as it may" in refused.body
    assert await cache.metric("pullthrough_fills_failed_total", reason="busy") == 1
    assert afterwards.body == two[1].content


async def test_one_that_nobody_waits_for_any_more_is_given_up(hub: FakeHub, cache: CacheRig, two: list[Layer]) -> None:
    first = asyncio.create_task(cache.get_blob(REPOSITORY, two[0].digest))
    await hub.wait_held(two[0].digest)
    leaving = asyncio.create_task(cache.get_blob(REPOSITORY, two[1].digest))
    await readers(cache, two[1].digest, 1)

    leaving.cancel()
    digest = Digest.parse(two[1].digest)
    await eventually(lambda: cache.app.store.fills.running(digest) is None, timeout=5, label="it is given up")

    hub.release()
    await first
    assert hub.count("GET", "blob", two[1].digest) == 0
    await nothing_left_open(cache)


async def test_stopping_while_a_fill_waits_is_quick(hub: FakeHub, cache: CacheRig, two: list[Layer]) -> None:
    pulls = [asyncio.create_task(cache.get_blob(REPOSITORY, each.digest)) for each in two]
    await hub.wait_held(count=1)
    await eventually(lambda: len(cache.app.store.fills) == 2)
    for pull in pulls:
        pull.cancel()

    async with asyncio.timeout(10):  # Less than a fill waits for its turn.
        await cache.restart()

    assert len(cache.app.store.fills) == 0
