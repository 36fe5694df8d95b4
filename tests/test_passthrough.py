"""What passes by the disk: right bytes or a broken body, resumed, bounded, and nothing left behind."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from proxy.config import Share
from proxy.server.floor import Floor
from proxy.server.pump import Pump
from proxy.store.fills.passthrough import PassThrough
from proxy.store.fills.source import MAX_IDLE_ATTEMPTS
from tests.blob_rig import (
    KIB,
    MIB,
    REPOSITORY,
    Layer,
    add_layer,
    admit,
    assert_never_whole,
    assert_unavailable,
    nothing_left_open,
    path_of,
    ranges_asked,
    read_until_broken,
    small_pauses,
)
from tests.cache_rig import CacheRig, gather
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.fake_hub.faults import at
from tests.room_rig import limit

TOO_LARGE = "pullthrough; fwd=miss; detail=too-large"


@pytest.fixture(autouse=True)
def asks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pauses(monkeypatch)


@pytest.fixture
async def cache(hub: FakeHub, cache: CacheRig) -> AsyncIterator[CacheRig]:
    """A cache with room for a byte."""
    await limit(cache, max_size=Share(1))
    yield cache
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {})


@pytest.fixture
async def layer(hub: FakeHub, cache: CacheRig) -> Layer:
    """A blob of which upstream has told the size, in a repository that is known."""
    layer = add_layer(hub, 2 * MIB)
    await admit(hub, cache, layer)
    return layer


async def test_it_arrives_whole_by_one_transfer(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body, reply.cache_status) == (200, layer.content, TOO_LARGE)
    assert reply.headers["Content-Length"] == str(layer.size)
    assert reply.headers["Docker-Content-Digest"] == layer.digest
    assert (hub.count("GET", "blob", layer.digest), hub.bytes_sent(layer.digest)) == (1, layer.size)
    assert await cache.metric("pullthrough_served_bytes_total", kind="blob") == layer.size
    assert await cache.metric("pullthrough_not_stored_total", reason="too-large") == 1
    assert await cache.metric("pullthrough_misses_total", kind="blob") == 2, "the HEAD before it was one too"
    await nothing_left_open(cache)


@pytest.mark.parametrize("size", [2, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 300 * KIB])
@pytest.mark.parametrize("chunked", [False, True])
async def test_every_size_arrives_whole(hub: FakeHub, cache: CacheRig, size: int, chunked: bool) -> None:
    layer = add_layer(hub, size)
    if chunked:
        hub.no_content_length(layer.digest)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("0-99", 0, 100),
        (f"{MIB}-{MIB + 9}", MIB, MIB + 10),
        (f"{MIB}-", MIB, 2 * MIB),
        ("-1000", 2 * MIB - 1000, 2 * MIB),
        (f"{2 * MIB - 64 * KIB}-{2 * MIB - 64 * KIB}", 2 * MIB - 64 * KIB, 2 * MIB - 64 * KIB + 1),
        (f"{2 * MIB - 64 * KIB - 1}-{2 * MIB - 64 * KIB - 1}", 2 * MIB - 64 * KIB - 1, 2 * MIB - 64 * KIB),
        (f"{2 * MIB - 1}-", 2 * MIB - 1, 2 * MIB),
    ],
)
async def test_the_part_that_is_asked_for_is_sent(
    hub: FakeHub, cache: CacheRig, layer: Layer, header: str, start: int, stop: int
) -> None:
    reply = await cache.get_blob(REPOSITORY, layer.digest, Range=f"bytes={header}")

    assert (reply.status, reply.body) == (206, layer.content[start:stop])
    assert reply.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{layer.size}"


async def test_ranges_that_cannot_be_are_answered_as_those_of_a_stored_blob(cache: CacheRig, layer: Layer) -> None:
    beyond = await cache.get_blob(REPOSITORY, layer.digest, Range=f"bytes={layer.size}-")
    several = await cache.get_blob(REPOSITORY, layer.digest, Range="bytes=0-1,5-6")

    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{layer.size}")
    assert (several.status, several.body) == (200, layer.content)
    await nothing_left_open(cache)


async def test_each_reader_has_a_transfer_of_its_own(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    replies = await gather(*(cache.get_blob(REPOSITORY, layer.digest) for _ in range(5)))

    assert {(reply.status, reply.body) for reply in replies} == {(200, layer.content)}
    assert hub.cdn_count(layer.digest) == 5


async def test_first_bytes_leave_at_once_and_the_last_only_when_verified(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    hub.hold(layer.digest, layer.size - 1)

    async with cache.open(layer.path) as response:
        first = await response.content.readexactly(layer.size - 64 * KIB)
        last = asyncio.create_task(response.content.readexactly(64 * KIB))
        await hub.wait_held(layer.digest)
        other = await cache.get_blob(REPOSITORY, layer.digest, Range="bytes=0-0")
        assert not last.done()
        hub.release()

        assert first + await last == layer.content
    assert other.body == layer.content[:1]


@pytest.mark.parametrize("at_byte", [0, MIB, 2 * MIB - 1], ids=["first", "middle", "last"])
async def test_wrong_bytes_never_arrive_whole(hub: FakeHub, cache: CacheRig, layer: Layer, at_byte: int) -> None:
    hub.corrupt(layer.digest, at_byte)

    received = await read_until_broken(cache, layer.path)

    assert_never_whole(received, layer)
    hub.heal()
    assert (await cache.get_blob(REPOSITORY, layer.digest)).body == layer.content


async def test_a_range_of_the_last_piece_of_wrong_bytes_never_arrives(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    hub.corrupt(layer.digest)

    assert await read_until_broken(cache, layer.path, {"Range": "bytes=-1000"}) == b""


@pytest.mark.parametrize("size", [2000, 64 * KIB])
async def test_a_small_blob_of_wrong_bytes_is_an_error(hub: FakeHub, cache: CacheRig, size: int) -> None:
    layer = add_layer(hub, size)
    hub.corrupt(layer.digest)

    assert_unavailable(await cache.get_blob(REPOSITORY, layer.digest))


@pytest.mark.parametrize("cut", [100 * KIB, MIB, 2 * MIB - 10])
async def test_a_transfer_that_breaks_is_resumed_where_it_stopped(
    hub: FakeHub, cache: CacheRig, layer: Layer, cut: int
) -> None:
    gate = hub.hold(layer.digest, cut, times=1)

    pull = asyncio.create_task(cache.get_blob(REPOSITORY, layer.digest))
    await hub.wait_held(layer.digest)
    hub.expire_urls()
    gate.cut()
    reply = await pull

    assert (reply.status, reply.body) == (200, layer.content)
    first, again = ranges_asked(hub, layer.digest)
    assert first is None
    assert again is not None and again.startswith("bytes=")
    assert hub.bytes_sent(layer.digest) < layer.size + cut


async def test_a_server_that_ignores_the_range_of_a_resumed_transfer_is_understood(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    hub.cut(layer.digest, MIB)
    hub.no_range(layer.digest)

    assert (await cache.get_blob(REPOSITORY, layer.digest)).body == layer.content


async def test_attempts_that_bring_next_to_nothing_are_bounded(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    hub.cut(layer.digest, 1000, times=None)

    received = await read_until_broken(cache, layer.path)

    assert received == layer.content[: len(received)]
    assert hub.cdn_count(layer.digest) == MAX_IDLE_ATTEMPTS + 1


async def test_a_size_that_changes_ends_it(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    gate = hub.hold(layer.digest, MIB, times=1)

    pull = asyncio.create_task(read_until_broken(cache, layer.path))
    await hub.wait_held(layer.digest)
    hub.truncate(layer.digest, 100, honest_length=True)
    gate.cut()

    assert len(await pull) <= MIB


@pytest.mark.parametrize(
    ("go_wrong", "status"),
    [
        (lambda hub: hub.fail(at("blob", method="GET"), 404), 404),
        (lambda hub: hub.fail(at("blob", method="GET"), 429), 429),
        (lambda hub: hub.fail("cdn", 500), 503),
        (lambda hub: hub.gzip_encode("cdn"), 503),
    ],
    ids=["404", "429", "cdn 500", "gzip"],
)
async def test_what_upstream_refuses_is_told_before_anything_is_sent(
    hub: FakeHub, cache: CacheRig, layer: Layer, go_wrong: Callable[[FakeHub], object], status: int
) -> None:
    go_wrong(hub)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert reply.status == status
    assert json.loads(reply.body)["errors"]


async def test_an_upstream_that_hangs_is_answered_503_in_time(
    hub: FakeHub, cache: CacheRig, layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.pull.blobs.HEADERS_PATIENCE_SECONDS", 0.1)
    hub.hang("cdn")

    assert_unavailable(await cache.get_blob(REPOSITORY, layer.digest))


async def test_a_client_that_leaves_ends_its_transfer_and_leaves_nothing_behind(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    """With one transfer at a time, the next one would wait for it in vain."""
    one = replace(cache.config().upstreams[0], transfers=1)
    cache.options = {**cache.options, "upstreams": (one,)}
    await cache.restart()
    hub.hold(layer.digest, MIB, times=1)

    async with cache.open(layer.path) as response:
        await response.content.readexactly(1000)
        await hub.wait_held(layer.digest)
    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert reply.body == layer.content
    await nothing_left_open(cache)
    gc.collect()  # A generator that nobody closed would be told of here, as a warning that is an error.


async def test_no_more_is_asked_for_than_the_client_takes(hub: FakeHub, cache: CacheRig) -> None:
    large = add_layer(hub, 64 * MIB)
    await admit(hub, cache, large)

    async with cache.open(large.path) as response:
        await response.content.readexactly(1)
        sent = -1
        while sent != hub.bytes_sent(large.digest):
            sent = hub.bytes_sent(large.digest)
            await asyncio.sleep(0.3)

    assert sent < 40 * MIB, "what is under way stands in sockets, not in our memory"


async def test_a_client_that_takes_nothing_is_given_up(
    hub: FakeHub, cache: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.app.generation.Pump", functools.partial(Pump, Floor(bytes=30_000, seconds=0.2)))
    await cache.restart()
    large = add_layer(hub, 64 * MIB)
    await admit(hub, cache, large)

    async def given_up() -> bool:
        return await cache.metric("pullthrough_connections_refused_total", reason="slow_reader") == 1

    async with cache.open(large.path) as response:
        await response.content.readexactly(1)
        await eventually(given_up, label="the client is given up")
    await nothing_left_open(cache)


async def test_content_that_ends_early_never_ends_cleanly(
    cache: CacheRig, layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def short(self: PassThrough, start: int, stop: int) -> AsyncIterator[bytes]:
        yield layer.content[:1000]

    monkeypatch.setattr(PassThrough, "rest", short)

    assert await read_until_broken(cache, layer.path) == layer.content[:1000]


async def test_head_and_other_repositories_are_as_ever(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    hub.link_blob("library/other", layer.digest)

    head = await cache.head_blob(REPOSITORY, layer.digest)
    theirs = await cache.get_blob("library/other", layer.digest)
    nobodys = await cache.send("GET", path_of("library/nothing", layer.digest))

    assert (head.status, head.headers["Content-Length"]) == (200, str(layer.size))
    assert (theirs.status, theirs.body) == (200, layer.content)
    assert nobodys.status in (403, 404)
