"""Fills by the door: one fetch, any number of readers, at any offset, who come and leave as they like."""

from __future__ import annotations

import asyncio
import hashlib
import json

import aiohttp
import pytest

from proxy.config import ServerOptions
from tests.blob_rig import (
    KIB,
    MIB,
    REPOSITORY,
    add_layer,
    fills,
    no_fills,
    nothing_left_open,
    open_store_files,
    partial_has,
    readers,
    stored,
)
from tests.cache_rig import ANY_PORT, CacheRig, gather
from tests.eventually import eventually
from tests.fake_hub import FakeHub


async def test_concurrent_misses_for_one_blob_collapse_into_one_upstream_fetch(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    hub.hold(layer.digest, after_bytes=layer.size // 2)

    async with asyncio.TaskGroup() as clients:
        pulls = [clients.create_task(cache.get_blob(REPOSITORY, layer.digest)) for _ in range(20)]
        await readers(cache, layer.digest, 20)
        hub.release()

    assert {(pull.result().status, pull.result().body) for pull in pulls} == {(200, layer.content)}
    assert (hub.count("GET", "blob", layer.digest), hub.cdn_count(layer.digest)) == (1, 1)
    assert hub.bytes_sent(layer.digest) == layer.size
    assert await cache.metric("pullthrough_collapsed_total", kind="blob") == 19
    assert sorted({pull.result().cache_status for pull in pulls}) == [
        "pullthrough; fwd=miss; collapsed",
        "pullthrough; fwd=miss; stored",
    ]
    assert cache.blobs_on_disk() == {layer.digest}


async def test_first_bytes_leave_at_once_while_upstream_holds_the_rest(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    hub.hold(layer.digest, after_bytes=1000)

    async with asyncio.timeout(2), cache.open(layer.path) as response:
        first = await response.content.readexactly(1000)
        length = response.headers["Content-Length"]
        hub.release()
        rest = await response.read()

    assert length == str(layer.size)
    assert first + rest == layer.content


async def test_a_follower_gets_headers_and_what_has_arrived_while_the_fill_runs(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    hub.hold(layer.digest, after_bytes=500 * KIB)

    async with asyncio.timeout(2), cache.open(layer.path):
        await partial_has(cache, layer.digest, 500 * KIB)
        async with cache.open(layer.path) as follower:
            arrived = await follower.content.readexactly(500 * KIB)
            running = await fills(cache)
            hub.release()
            rest = await follower.read()

    assert follower.headers["Content-Length"] == str(layer.size)
    assert [(fill["received"], fill["size"], fill["readers"]) for fill in running] == [(500 * KIB, layer.size, 2)]
    assert arrived + rest == layer.content


async def test_readers_at_any_offset_follow_one_fill(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    hub.hold(layer.digest, after_bytes=700 * KIB)
    size = layer.size
    ranges = {
        "bytes=0-99": (0, 100),
        f"bytes={600 * KIB}-{650 * KIB}": (600 * KIB, 650 * KIB + 1),
        f"bytes={650 * KIB}-{800 * KIB}": (650 * KIB, 800 * KIB + 1),
        f"bytes={900 * KIB}-": (900 * KIB, size),
        f"bytes={size - 1}-": (size - 1, size),
        f"bytes=17-{10 * size}": (17, size),
        "bytes=-1000": (size - 1000, size),
        "bytes=0-": (0, size),
    }

    pulls = [asyncio.create_task(cache.get_blob(REPOSITORY, layer.digest, Range=header)) for header in ranges]
    await eventually(lambda: pulls[0].done() and pulls[1].done(), label="what has arrived is served")
    assert not any(pull.done() for pull in pulls[2:])
    hub.release()
    replies = await gather(*pulls)

    for reply, (start, stop) in zip(replies, ranges.values(), strict=True):
        assert (reply.status, reply.body) == (206, layer.content[start:stop])
        assert reply.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{size}"
        assert reply.headers["Content-Length"] == str(stop - start)
    assert hub.bytes_sent(layer.digest) == size


async def test_other_ranges_of_a_running_fill_are_answered_as_those_of_a_stored_blob(
    hub: FakeHub, cache: CacheRig
) -> None:
    layer = add_layer(hub)
    hub.hold(layer.digest, after_bytes=500 * KIB)

    async with cache.open(layer.path):
        await readers(cache, layer.digest, 1)
        beyond = await cache.get_blob(REPOSITORY, layer.digest, Range=f"bytes={layer.size}-")
        async with cache.open(layer.path, {"Range": "bytes=0-1,5-6"}) as several:
            pass

    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{layer.size}")
    assert (several.status, several.headers["Content-Length"]) == (200, str(layer.size))


async def test_the_last_piece_is_held_back_until_the_digest_is_verified(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    hub.hold(layer.digest, after_bytes=layer.size - 1)

    async with cache.open(layer.path) as response:
        await response.content.readexactly(layer.size - 64 * KIB)
        await partial_has(cache, layer.digest, layer.size - 1)
        last = asyncio.create_task(response.content.readexactly(64 * KIB))
        other = await cache.get_blob(REPOSITORY, layer.digest, Range="bytes=0-0")
        assert not last.done()
        hub.release()

        assert await last == layer.content[-64 * KIB :]
    assert other.body == layer.content[:1]


async def test_a_reader_that_leaves_changes_nothing_for_the_others(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    hub.hold(layer.digest, after_bytes=500 * KIB)

    leaving = asyncio.create_task(cache.get_blob(REPOSITORY, layer.digest))
    await readers(cache, layer.digest, 1)
    staying = asyncio.create_task(cache.get_blob(REPOSITORY, layer.digest))
    await readers(cache, layer.digest, 2)
    leaving.cancel()
    await readers(cache, layer.digest, 1)
    hub.release()

    assert (await staying).body == layer.content
    assert hub.bytes_sent(layer.digest) == layer.size
    await nothing_left_open(cache)


async def test_a_fill_goes_on_when_all_readers_have_left(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    hub.hold(layer.digest, after_bytes=500 * KIB)

    for _ in range(3):
        async with cache.open(layer.path) as response:
            await response.content.readexactly(1000)
    await readers(cache, layer.digest, 0)
    hub.release()
    await stored(cache, layer.digest)
    hit = await cache.get_blob(REPOSITORY, layer.digest)

    assert (hit.body, hit.cache_status) == (layer.content, "pullthrough; hit")
    assert hub.bytes_sent(layer.digest) == layer.size
    await nothing_left_open(cache)


async def test_a_client_that_leaves_before_the_headers_does_not_stop_the_fill(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    hub.hang(layer.digest)

    leaving = asyncio.create_task(cache.get_blob(REPOSITORY, layer.digest))
    await readers(cache, layer.digest, 1)
    leaving.cancel()
    await readers(cache, layer.digest, 0)
    hub.release()

    await stored(cache, layer.digest)
    await nothing_left_open(cache)


async def test_open_ended_ranges_that_are_broken_off_cost_one_fetch_and_are_no_errors(
    hub: FakeHub, cache: CacheRig
) -> None:
    """As containerd 2.1 asks with `concurrent_layer_fetch_buffer` (PROTOCOL 5.2)."""
    layer = add_layer(hub, 4 * MIB)
    chunk = 512 * KIB
    hub.hold(layer.digest, after_bytes=MIB)

    async def fetch(offset: int) -> bytes:
        async with cache.open(layer.path, {"Range": f"bytes={offset}-"}) as response:
            assert response.status == 206
            assert response.headers["Content-Range"] == f"bytes {offset}-{layer.size - 1}/{layer.size}"
            content: bytes = await response.content.readexactly(chunk)
            return content

    chunks = [asyncio.create_task(fetch(offset)) for offset in range(0, layer.size, chunk)]
    await readers(cache, layer.digest, 6)  # Those of the first MiB have what they wanted.
    hub.release()
    received = await gather(*chunks)

    assert b"".join(received) == layer.content
    await stored(cache, layer.digest)
    assert (hub.count("GET", "blob", layer.digest), hub.bytes_sent(layer.digest)) == (1, layer.size)
    assert await cache.metric("pullthrough_requests_total", kind="blob", code="206") == 8
    assert await cache.metric("pullthrough_fills_failed_total") is None
    await eventually(lambda: len(cache.log.getvalue().splitlines()) == 8)
    assert {json.loads(line).get("error") for line in cache.log.getvalue().splitlines()} == {None}
    await nothing_left_open(cache)


async def test_a_slow_reader_slows_neither_the_fill_nor_other_readers(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub, 24 * MIB)

    async with cache.open(layer.path) as slow:
        await slow.content.readexactly(1)
        quick = await cache.get_blob(REPOSITORY, layer.digest)
        await stored(cache, layer.digest)
        assert open_store_files(cache), "the slow reader is not done"
        rest = await slow.read()

    assert quick.body == layer.content
    assert hashlib.sha256(layer.content[:1] + rest).hexdigest() == layer.digest.removeprefix("sha256:")
    assert hub.bytes_sent(layer.digest) == layer.size
    await nothing_left_open(cache)


async def test_head_of_a_running_fill_asks_nobody(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    hub.hold(layer.digest, after_bytes=1000)

    async with cache.open(layer.path):
        hub.reset_counts()
        reply = await cache.head_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.headers["Content-Length"]) == (200, str(layer.size))
    assert hub.requests == []


async def test_several_blobs_are_filled_at_once(hub: FakeHub, cache: CacheRig) -> None:
    layers = [add_layer(hub, 200 * KIB, seed=seed) for seed in range(12)]
    for layer in layers:
        hub.hold(layer.digest, after_bytes=100 * KIB)

    pulls = [asyncio.create_task(cache.get_blob(REPOSITORY, layer.digest)) for layer in layers]
    await hub.wait_held(count=12)
    assert await cache.metric("pullthrough_fills_running") == 12
    hub.release()
    replies = await gather(*pulls)

    assert [reply.body for reply in replies] == [layer.content for layer in layers]
    await no_fills(cache)
    assert await cache.metric("pullthrough_fills_running") == 0


async def test_without_any_length_the_size_is_never_guessed(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    hub.no_content_length(layer.digest)
    hub.hold(layer.digest, after_bytes=500 * KIB)

    pull = asyncio.create_task(cache.get_blob(REPOSITORY, layer.digest, Range="bytes=0-9"))
    await partial_has(cache, layer.digest, 500 * KIB)
    assert not pull.done()
    hub.release()
    reply = await pull

    assert (reply.status, reply.body) == (206, layer.content[:10])
    assert reply.headers["Content-Range"] == f"bytes 0-9/{layer.size}"


async def test_where_upstream_tells_no_length_the_manifest_does(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    image = hub.add_image(REPOSITORY, "latest", [layer.digest])
    await cache.get_manifest(REPOSITORY, image.digest)
    hub.no_content_length(layer.digest)
    hub.hold(layer.digest, after_bytes=500 * KIB)

    async with asyncio.timeout(2), cache.open(layer.path) as response:
        first = await response.content.readexactly(500 * KIB)
        hub.release()
        rest = await response.read()

    assert response.headers["Content-Length"] == str(layer.size)
    assert first + rest == layer.content


async def test_stopping_in_mid_fill_is_quick_and_keeps_what_has_arrived(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    gate = hub.hold(layer.digest, after_bytes=500 * KIB)
    async with cache.open(layer.path):
        await partial_has(cache, layer.digest, 500 * KIB)

    await cache.stop()
    gate.cut()
    kept, stored_by_then = cache.partials_on_disk(), cache.blobs_on_disk()
    await cache.start()
    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (kept, stored_by_then) == ({layer.digest: 500 * KIB}, set())
    assert reply.body == layer.content
    assert hub.bytes_sent(layer.digest) == layer.size, "nothing is fetched twice"


async def test_a_fill_cut_off_by_shutdown_breaks_the_body_of_its_reader(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    cache.options = {"server": ServerOptions(listen=ANY_PORT, shutdown_timeout=0.1)}
    await cache.restart()
    hub.hold(layer.digest, after_bytes=500 * KIB)

    async with cache.open(layer.path) as response:
        await response.content.readexactly(500 * KIB)
        await cache.stop()
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    await cache.start()

    assert cache.partials_on_disk() == {layer.digest: 500 * KIB}
