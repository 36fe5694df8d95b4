"""Transfers that break: resumed where they stopped, bounded, and what is left when even that fails."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from proxy.store.fills.source import MAX_IDLE_ATTEMPTS
from tests.blob_rig import (
    KIB,
    REPOSITORY,
    Layer,
    add_layer,
    assert_next_pull_succeeds,
    assert_unavailable,
    broken_off,
    no_fills,
    partial_has,
    ranges_asked,
    read_until_broken,
    readers,
    small_pauses,
    stored,
)
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub
from tests.fake_hub.answers import Answer
from tests.fake_hub.content import Bytes

HALF = 512 * KIB


@pytest.fixture(autouse=True)
def asks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pauses(monkeypatch)


@pytest.fixture
def layer(hub: FakeHub) -> Layer:
    return add_layer(hub)


async def test_a_transfer_that_breaks_is_resumed_through_a_fresh_redirect_and_fetches_nothing_twice(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    gate = hub.hold(layer.digest, HALF, times=1)

    async with cache.open(layer.path) as response:
        first = await response.content.readexactly(1000)
        await partial_has(cache, layer.digest, HALF)
        hub.expire_urls()
        gate.cut()
        rest = await response.read()

    assert first + rest == layer.content
    assert ranges_asked(hub, layer.digest) == [None, f"bytes={HALF}-"]
    assert hub.count("GET", "blob", layer.digest) == 2
    assert hub.bytes_sent(layer.digest) == layer.size
    assert hub.violations == []
    await stored(cache, layer.digest)


async def test_every_reader_of_a_broken_transfer_gets_the_whole(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    gate = hub.hold(layer.digest, HALF, times=1)

    async with cache.open(layer.path) as whole, cache.open(layer.path, {"Range": f"bytes={HALF + 5}-"}) as part:
        await readers(cache, layer.digest, 2)
        gate.cut()
        received = await whole.read(), await part.read()

    assert received == (layer.content, layer.content[HALF + 5 :])


async def test_a_transfer_that_breaks_often_but_comes_forward_succeeds(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    cuts = 2 * MAX_IDLE_ATTEMPTS
    hub.cut(layer.digest, 80 * KIB, times=cuts)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    assert hub.cdn_count(layer.digest) == cuts + 1
    await assert_next_pull_succeeds(hub, cache, layer)


@pytest.mark.parametrize("after_bytes", [0, 1, 5000])
async def test_transfers_that_bring_next_to_nothing_are_bounded(
    hub: FakeHub, cache: CacheRig, layer: Layer, after_bytes: int
) -> None:
    hub.cut(layer.digest, after_bytes, times=None)

    received = await read_until_broken(cache, layer.path)
    await no_fills(cache)

    assert received == layer.content[: len(received)]
    assert hub.cdn_count(layer.digest) <= 2 * (MAX_IDLE_ATTEMPTS + 1)
    assert cache.blobs_on_disk() == set()
    assert cache.partials_on_disk().get(layer.digest, 0) <= after_bytes * hub.cdn_count(layer.digest)
    await assert_next_pull_succeeds(hub, cache, layer)


async def test_a_body_that_ends_cleanly_but_early_is_resumed(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    hub.truncate(layer.digest, HALF, times=1)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    await assert_next_pull_succeeds(hub, cache, layer)


async def test_a_server_that_ignores_the_range_of_a_resumed_transfer_is_understood(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    gate = hub.hold(layer.digest, HALF, times=1)

    async with cache.open(layer.path) as response:
        await partial_has(cache, layer.digest, HALF)
        hub.no_range(layer.digest)
        gate.cut()
        received = await response.read()

    assert received == layer.content
    assert hub.bytes_sent(layer.digest) == HALF + layer.size
    await assert_next_pull_succeeds(hub, cache, layer)


async def test_a_size_that_changes_in_mid_fill_ends_it(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    gate = hub.hold(layer.digest, HALF, times=1)

    async with cache.open(layer.path) as response:
        await partial_has(cache, layer.digest, HALF)
        hub.truncate(layer.digest, 100, honest_length=True)
        gate.cut()
        await broken_off(response)

    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {layer.digest: HALF})
    await assert_next_pull_succeeds(hub, cache, layer)


@pytest.mark.parametrize("listeners", [(), ("cdn",)], ids=["all", "cdn"])
async def test_an_upstream_that_goes_away_in_mid_fill_leaves_a_partial_that_the_next_pull_resumes(
    hub: FakeHub, cache: CacheRig, layer: Layer, listeners: tuple[str, ...]
) -> None:
    hub.hold(layer.digest, HALF, times=1)

    async with cache.open(layer.path) as response:
        await partial_has(cache, layer.digest, HALF)
        await hub.gone(*listeners)
        await broken_off(response)
    left = cache.blobs_on_disk(), cache.partials_on_disk()
    await hub.back(*listeners)

    assert left == (set(), {layer.digest: HALF})
    await assert_next_pull_succeeds(hub, cache, layer)
    assert hub.bytes_sent(layer.digest) == layer.size, "nothing is fetched twice"


async def test_a_body_without_a_length_that_ends_early_is_resumed_if_the_manifest_tells_the_size(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    image = hub.add_image(REPOSITORY, None, [layer.digest])
    await cache.get_manifest(REPOSITORY, image.digest)
    hub.no_content_length(layer.digest)
    hub.truncate(layer.digest, HALF, times=1)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    assert ranges_asked(hub, layer.digest) == [None, f"bytes={HALF}-"]


async def test_a_body_without_any_length_that_ends_early_is_wrong_content(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    hub.no_content_length(layer.digest)
    hub.truncate(layer.digest, HALF)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert_unavailable(reply)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {})
    await assert_next_pull_succeeds(hub, cache, layer)


def _longer(layer: Layer) -> Callable[[Answer], None]:
    def change(answer: Answer) -> None:
        answer.content, answer.chunked = Bytes(layer.content + b"more"), True

    return change


async def test_what_a_body_without_a_length_has_beyond_the_size_is_not_taken(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    image = hub.add_image(REPOSITORY, None, [layer.digest])
    await cache.get_manifest(REPOSITORY, image.digest)
    hub.change(layer.digest, _longer(layer), content_only=True)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body, reply.headers["Content-Length"]) == (200, layer.content, str(layer.size))
    assert hub.cdn_count(layer.digest) == 1


async def test_a_body_that_breaks_after_its_last_byte_is_whole(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    image = hub.add_image(REPOSITORY, None, [layer.digest])
    await cache.get_manifest(REPOSITORY, image.digest)
    hub.no_content_length(layer.digest)
    hub.cut(layer.digest, layer.size, times=None)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    assert hub.cdn_count(layer.digest) == 1


async def test_a_manifest_that_lies_about_a_size_keeps_nobody_from_the_blob(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    lie = {"schemaVersion": 2, "layers": [{"digest": layer.digest, "size": 12, "mediaType": "application/x"}]}
    manifest = hub.add_manifest(REPOSITORY, json.dumps(lie).encode())
    await cache.get_manifest(REPOSITORY, manifest)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
