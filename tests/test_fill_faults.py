"""Wrong bytes, and answers that are none: what the client sees, what is left, and that the next pull succeeds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from proxy.store.fills.source import MAX_IDLE_ATTEMPTS
from tests.blob_rig import (
    KIB,
    MIB,
    REPOSITORY,
    Layer,
    add_layer,
    admit,
    assert_never_whole,
    assert_next_pull_succeeds,
    assert_unavailable,
    broken_off,
    no_fills,
    partial_has,
    path_of,
    ranges_asked,
    read_until_broken,
    readers,
    small_pauses,
    stored,
)
from tests.cache_rig import CacheRig
from tests.fake_hub import OCI_MANIFEST, FakeHub
from tests.fake_hub.faults import at

HALF = 512 * KIB


@pytest.fixture(autouse=True)
def asks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pauses(monkeypatch)


@pytest.fixture
def layer(hub: FakeHub) -> Layer:
    return add_layer(hub)


@pytest.mark.parametrize("at_byte", [0, HALF, MIB - 1], ids=["first", "middle", "last"])
async def test_wrong_bytes_never_arrive_whole_and_are_not_kept(
    hub: FakeHub, cache: CacheRig, layer: Layer, at_byte: int
) -> None:
    hub.corrupt(layer.digest, at_byte)

    received = await read_until_broken(cache, layer.path)

    assert_never_whole(received, layer)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {})
    assert await cache.metric("pullthrough_fills_failed_total", reason="wrong_content") == 1
    await assert_next_pull_succeeds(hub, cache, layer)


@pytest.mark.parametrize("size", [1, 64 * KIB])
async def test_nothing_of_a_small_blob_is_answered_before_it_is_verified(
    hub: FakeHub, cache: CacheRig, size: int
) -> None:
    small = add_layer(hub, size)
    hub.corrupt(small.digest)

    reply = await cache.get_blob(REPOSITORY, small.digest)

    assert_unavailable(reply)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {})
    await assert_next_pull_succeeds(hub, cache, small)


async def test_a_range_of_the_last_piece_of_wrong_bytes_never_arrives(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    hub.corrupt(layer.digest)

    received = await read_until_broken(cache, layer.path, {"Range": "bytes=-1000"})

    assert received == b""
    await assert_next_pull_succeeds(hub, cache, layer)


@pytest.mark.parametrize("body", [b"", b"<html>Please log in to the network</html>"], ids=["empty", "short"])
async def test_a_short_body_with_right_headers_is_an_error(
    hub: FakeHub, cache: CacheRig, layer: Layer, body: bytes
) -> None:
    hub.garbage(layer.digest, body)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert_unavailable(reply)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {})
    await assert_next_pull_succeeds(hub, cache, layer)


async def test_another_body_with_right_headers_is_not_kept(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    hub.garbage(layer.digest, b"x" * 2 * MIB)

    received = await read_until_broken(cache, layer.path)

    assert len(received) <= 2 * MIB - 64 * KIB
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {})
    await assert_next_pull_succeeds(hub, cache, layer)


async def test_a_body_that_is_short_and_says_so_is_not_kept(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    hub.truncate(layer.digest, HALF, honest_length=True)

    received = await read_until_broken(cache, layer.path)

    assert len(received) <= HALF - 64 * KIB
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {})
    await assert_next_pull_succeeds(hub, cache, layer)


async def test_an_encoding_that_was_not_asked_for_is_refused(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    await admit(hub, cache, layer)
    hub.gzip_encode(layer.digest)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert_unavailable(reply)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {})
    await assert_next_pull_succeeds(hub, cache, layer)


@pytest.mark.parametrize(
    "break_once",
    [
        lambda hub: hub.fail(at("blob", method="GET"), 500, times=1),
        lambda hub: hub.fail("cdn", 500, times=2),
        lambda hub: hub.fail("cdn", 403, times=1),
        lambda hub: hub.fail("cdn", 404, times=1),
        lambda hub: hub.garbage("cdn", times=1),
        lambda hub: hub.garbage(at("blob", method="GET"), times=1),
        lambda hub: hub.gzip_encode("cdn", times=1),
        lambda hub: hub.redirect_loop("cdn", times=10),
        lambda hub: hub.redirect_to("cdn", "http://127.0.0.1:1/", times=1),
    ],
    ids=["500", "cdn 500", "cdn 403", "cdn 404", "cdn garbage", "garbage", "gzip", "redirect loop", "refused"],
)
async def test_what_goes_wrong_for_a_moment_is_not_the_clients_trouble(
    hub: FakeHub, cache: CacheRig, layer: Layer, break_once: Callable[[FakeHub], object]
) -> None:
    await admit(hub, cache, layer)
    break_once(hub)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    assert hub.count("GET", "blob", layer.digest) > 1, "asked again, through a fresh redirect"
    await assert_next_pull_succeeds(hub, cache, layer)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda hub: hub.fail(at("blob", method="GET"), 500),
        lambda hub: hub.fail("cdn", 500),
        lambda hub: hub.fail("cdn", 403),
        lambda hub: hub.fail("cdn", 404),
        lambda hub: hub.garbage("cdn"),
        lambda hub: hub.redirect_loop("cdn"),
        lambda hub: hub.fail("cdn", 416),
    ],
    ids=["500", "cdn 500", "cdn 403", "cdn 404", "garbage", "redirect loop", "416"],
)
async def test_what_stays_wrong_is_answered_503_and_leaves_nothing(
    hub: FakeHub, cache: CacheRig, layer: Layer, break_it: Callable[[FakeHub], object]
) -> None:
    await admit(hub, cache, layer)
    break_it(hub)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert_unavailable(reply)
    assert hub.count("GET", "blob", layer.digest) == MAX_IDLE_ATTEMPTS + 1
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {})
    await assert_next_pull_succeeds(hub, cache, layer)


@pytest.mark.parametrize("listeners", [(), ("registry",), ("cdn",)], ids=["all", "registry", "cdn"])
async def test_an_upstream_that_is_gone_is_answered_503_and_leaves_nothing(
    hub: FakeHub, cache: CacheRig, layer: Layer, listeners: tuple[str, ...]
) -> None:
    await admit(hub, cache, layer)
    await hub.gone(*listeners)

    reply = await cache.get_blob(REPOSITORY, layer.digest)
    left = cache.blobs_on_disk(), cache.partials_on_disk()
    await hub.back(*listeners)

    assert_unavailable(reply)
    assert left == (set(), {})
    await assert_next_pull_succeeds(hub, cache, layer)


@pytest.mark.parametrize("target", ["blob", "cdn"])
async def test_an_upstream_that_hangs_is_answered_503_in_time_and_the_fill_goes_on(
    hub: FakeHub, cache: CacheRig, layer: Layer, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await admit(hub, cache, layer)
    monkeypatch.setattr("proxy.pull.blobs.HEADERS_PATIENCE_SECONDS", 0.1)
    hub.hang(target)

    reply = await cache.get_blob(REPOSITORY, layer.digest)
    await readers(cache, layer.digest, 0)
    hub.release()
    await stored(cache, layer.digest)
    second = await cache.get_blob(REPOSITORY, layer.digest)

    assert_unavailable(reply)
    assert reply.headers["Retry-After"] == "5"
    assert (second.body, second.cache_status) == (layer.content, "pullthrough; hit")
    assert hub.count("GET", "blob", layer.digest) == 1


async def test_an_upstream_that_falls_silent_in_mid_fill_is_asked_again(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    cache.idle_timeout = 0.2
    await cache.restart()
    hub.hold(layer.digest, HALF, times=1)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    assert ranges_asked(hub, layer.digest) == [None, f"bytes={HALF}-"]


async def test_a_refusal_in_mid_fill_ends_it_and_keeps_the_partial(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    gate = hub.hold(layer.digest, HALF, times=1)

    async with cache.open(layer.path) as response:
        await partial_has(cache, layer.digest, HALF)
        hub.fail(at("blob", method="GET"), 404)
        gate.cut()
        await broken_off(response)

    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {layer.digest: HALF})
    await assert_next_pull_succeeds(hub, cache, layer)


@pytest.mark.parametrize("said", [300 * KIB, 3 * MIB], ids=["too few", "too many"])
async def test_an_answer_of_another_size_than_the_manifest_says_is_none(
    cache: CacheRig, hub: FakeHub, said: int
) -> None:
    """The page of a login, say: a range of it would be nonsense, and what is kept of its size would outlive it."""
    image = hub.add_image(REPOSITORY, "latest", [os.urandom(MIB)])
    layer = json.loads((await cache.get_manifest(REPOSITORY, "latest")).body)["layers"][0]
    hub.garbage("cdn", bytes(said), times=2)

    reply = await cache.get_blob(REPOSITORY, layer["digest"], Range="bytes=1000000-")

    assert (reply.status, len(reply.body)) == (206, layer["size"] - 1_000_000)
    assert (await cache.head_blob(REPOSITORY, layer["digest"])).headers["Content-Length"] == str(layer["size"])
    await no_fills(cache)
    assert cache.blobs_on_disk() == {image.digest, layer["digest"]}


async def test_a_head_that_tells_another_size_than_the_manifest_is_not_believed(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(REPOSITORY, "latest", [os.urandom(MIB)])
    layer = json.loads((await cache.get_manifest(REPOSITORY, "latest")).body)["layers"][0]
    hub.garbage("cdn", bytes(300), times=1)

    reply = await cache.head_blob(REPOSITORY, layer["digest"])

    assert (reply.status, reply.headers["Content-Length"]) == (200, str(layer["size"]))
    assert (await cache.get_blob(REPOSITORY, layer["digest"], Range="bytes=1000000-")).status == 206


async def test_a_size_that_upstream_insists_on_is_forgotten_for_the_one_of_the_manifest(
    cache: CacheRig, hub: FakeHub
) -> None:
    hub.add_image(REPOSITORY, "latest", [os.urandom(MIB)])
    layer = json.loads((await cache.get_manifest(REPOSITORY, "latest")).body)["layers"][0]
    rule = hub.garbage("cdn", bytes(3 * MIB))
    await read_until_broken(cache, path_of(REPOSITORY, layer["digest"]))
    assert rule.used == MAX_IDLE_ATTEMPTS + 1
    await no_fills(cache)
    hub.heal()
    hub.reset_counts()

    reply = await cache.get_blob(REPOSITORY, layer["digest"])

    assert (reply.status, len(reply.body), hub.count("GET", "blob")) == (200, layer["size"], 1)


async def test_a_manifest_that_tells_a_wrong_size_does_not_keep_a_blob_back(cache: CacheRig, hub: FakeHub) -> None:
    layer = add_layer(hub, MIB)
    body = json.dumps({"schemaVersion": 2, "layers": [{"digest": layer.digest, "size": 5, "mediaType": "a/b"}]})
    hub.add_manifest(REPOSITORY, body.encode(), OCI_MANIFEST, tag="latest")
    await cache.get_manifest(REPOSITORY, "latest")

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
