"""Blobs by the door: what a client sees of one that is fetched, and of one that is stored."""

from __future__ import annotations

import json

import pytest

from proxy.store.fills.progress import HELD_BACK_BYTES
from tests.blob_rig import KIB, MIB, REPOSITORY, add_layer, no_fills, nothing_left_open
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub

SMALL, LARGE = 10 * KIB, 300 * KIB
MISSING = "sha256:" + "ab" * 32


@pytest.mark.parametrize("size", [1, HELD_BACK_BYTES - 1, HELD_BACK_BYTES, HELD_BACK_BYTES + 1, 3 * MIB + 7])
async def test_a_blob_of_any_size_is_fetched_once_and_then_a_hit(hub: FakeHub, cache: CacheRig, size: int) -> None:
    layer = add_layer(hub, size)

    first = await cache.get_blob(REPOSITORY, layer.digest)
    await no_fills(cache)
    second = await cache.get_blob(REPOSITORY, layer.digest)

    assert (first.status, first.body) == (second.status, second.body) == (200, layer.content)
    assert (first.cache_status, second.cache_status) == ("pullthrough; fwd=miss; stored", "pullthrough; hit")
    assert hub.bytes_sent(layer.digest) == size
    assert cache.blobs_on_disk() == {layer.digest}
    assert cache.partials_on_disk() == {}


async def test_the_empty_blob_is_a_blob(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub, 0)

    first = await cache.get_blob(REPOSITORY, layer.digest)
    second = await cache.get_blob(REPOSITORY, layer.digest, Range="bytes=0-")

    assert [(each.status, each.body, each.headers["Content-Length"]) for each in (first, second)] == [
        (200, b"", "0")
    ] * 2
    assert cache.blobs_on_disk() == {layer.digest}


async def test_the_empty_blob_too_is_only_where_upstream_has_it(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub, 0, repository="library/other")
    add_layer(hub, 10)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert reply.status == 404


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_headers_of_a_blob_are_exact(hub: FakeHub, cache: CacheRig, size: int) -> None:
    layer = add_layer(hub, size)

    replies = [await cache.send(method, layer.path) for method in ("GET", "GET", "HEAD")]

    for reply in replies:
        headers = {name.lower(): value for name, value in reply.headers.items()}
        del headers["date"], headers["cache-status"]
        assert headers == {
            "docker-distribution-api-version": "registry/2.0",
            "server": "pullthrough",
            "content-type": "application/octet-stream",
            "content-length": str(size),
            "docker-content-digest": layer.digest,
            "etag": f'"{layer.digest}"',
            "accept-ranges": "bytes",
            "cache-control": "public, max-age=31536000, immutable",
        }
    assert replies[2].body == b""


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [("bytes=0-", 0, None), ("bytes=5-9", 5, 10), ("bytes=-7", -7, None), ("bytes=9-9999999", 9, None)],
)
async def test_a_single_range_of_a_stored_blob_is_answered_206(
    hub: FakeHub, cache: CacheRig, size: int, header: str, start: int, stop: int | None
) -> None:
    layer = add_layer(hub, size)
    await cache.get_blob(REPOSITORY, layer.digest)
    await no_fills(cache)

    reply = await cache.get_blob(REPOSITORY, layer.digest, Range=header)

    wanted = layer.content[start:stop]
    first = start % size
    assert (reply.status, reply.body) == (206, wanted)
    assert reply.headers["Content-Length"] == str(len(wanted))
    assert reply.headers["Content-Range"] == f"bytes {first}-{first + len(wanted) - 1}/{size}"
    assert reply.headers["ETag"] == f'"{layer.digest}"'


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize(
    "header", ["bytes=0-1,5-6", "bytes=9-5", "lines=1-2", "bytes=x", "bytes=-0", "bytes=" + "9" * 30 + "-"]
)
async def test_any_other_range_is_answered_with_the_whole(
    hub: FakeHub, cache: CacheRig, size: int, header: str
) -> None:
    layer = add_layer(hub, size)

    first = await cache.get_blob(REPOSITORY, layer.digest, Range=header)
    second = await cache.get_blob(REPOSITORY, layer.digest, Range=header)

    assert (first.status, first.body) == (second.status, second.body) == (200, layer.content)
    assert "Content-Range" not in first.headers and "Content-Range" not in second.headers


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_a_range_that_starts_beyond_the_end_is_answered_416_with_the_size(
    hub: FakeHub, cache: CacheRig, size: int
) -> None:
    layer = add_layer(hub, size)

    replies = [await cache.get_blob(REPOSITORY, layer.digest, Range=f"bytes={size}-") for _ in range(2)]

    for reply in replies:
        assert (reply.status, reply.headers["Content-Range"]) == (416, f"bytes */{size}")
    await no_fills(cache)
    assert cache.blobs_on_disk() == {layer.digest}


async def test_if_range_with_another_tag_is_answered_with_the_whole(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    part = {"Range": "bytes=0-9"}

    other = await cache.get_blob(REPOSITORY, layer.digest, **part, **{"If-Range": '"another"'})
    same = await cache.get_blob(REPOSITORY, layer.digest, **part, **{"If-Range": f'"{layer.digest}"'})

    assert (other.status, other.body) == (200, layer.content)
    assert (same.status, same.body) == (206, layer.content[:10])


async def test_a_blob_that_the_client_has_is_not_sent_again(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    await cache.get_blob(REPOSITORY, layer.digest)
    await no_fills(cache)

    reply = await cache.get_blob(REPOSITORY, layer.digest, **{"If-None-Match": f'"{layer.digest}"'})

    assert (reply.status, reply.body) == (304, b"")
    await nothing_left_open(cache)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_blob_that_upstream_lacks_is_answered_404_and_leaves_nothing(
    hub: FakeHub, cache: CacheRig, method: str
) -> None:
    add_layer(hub)
    cache_before = cache.blobs_on_disk()

    reply = await cache.send(method, f"/v2/{REPOSITORY}/blobs/{MISSING}")

    assert reply.status == 404
    if method == "GET":
        assert json.loads(reply.body)["errors"][0]["code"] == "BLOB_UNKNOWN"
    assert cache.blobs_on_disk() == cache_before
    assert cache.partials_on_disk() == {}
    await nothing_left_open(cache)


async def test_a_missing_blob_is_asked_for_once_in_a_while(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    hub.repositories[REPOSITORY].blobs.clear()

    replies = [await cache.get_blob(REPOSITORY, layer.digest) for _ in range(5)]
    hub.link_blob(REPOSITORY, layer.digest)
    cache.clock.advance(31)
    found = await cache.get_blob(REPOSITORY, layer.digest)

    assert {reply.status for reply in replies} == {404}
    assert hub.count("GET", "blob", layer.digest) == 2
    assert (found.status, found.body) == (200, layer.content)


async def test_head_never_starts_a_fill(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)

    reply = await cache.head_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.headers["Content-Length"]) == (200, str(layer.size))
    assert reply.cache_status == "pullthrough; fwd=miss"
    assert hub.count("GET", "blob") == hub.cdn_count() == 0
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {})


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_head_of_a_stored_blob_asks_nobody(hub: FakeHub, cache: CacheRig, size: int) -> None:
    layer = add_layer(hub, size)
    await cache.get_blob(REPOSITORY, layer.digest)
    await no_fills(cache)
    hub.reset_counts()

    reply = await cache.head_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.headers["Content-Length"]) == (200, str(size))
    assert hub.requests == []


async def test_no_file_stays_open_and_no_rule_of_the_hub_is_broken(hub: FakeHub, cache: CacheRig) -> None:
    small, large = add_layer(hub, SMALL), add_layer(hub, LARGE, seed=1)

    for path in (small.path, large.path) * 3:
        await cache.send("GET", path)
        await cache.send("HEAD", path)
        await cache.send("GET", path, {"Range": "bytes=9999999999-"})

    await nothing_left_open(cache)
    assert hub.violations == []
