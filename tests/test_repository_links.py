"""A blob is given only under a repository that is known to hold it, wherever the bytes came from (PROTOCOL 8.4)."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.blob_rig import (
    KIB,
    Layer,
    add_layer,
    fills,
    nothing_left_open,
    partial_has,
    path_of,
    readers,
    stored,
)
from tests.cache_rig import CacheRig, gather
from tests.fake_hub import FakeHub
from tests.fake_hub.faults import at

OURS, THEIRS = "library/ours", "library/theirs"
HALF = 512 * KIB
SIZES = pytest.mark.parametrize("size", [10 * KIB, 1024 * KIB], ids=["small", "large"])


def code_of(body: bytes) -> str:
    code: str = json.loads(body)["errors"][0]["code"]
    return code


async def stored_for_ours(hub: FakeHub, cache: CacheRig, size: int = 1024 * KIB) -> Layer:
    """A blob that came by one repository, while another one exists without it."""
    layer = add_layer(hub, size, repository=OURS)
    add_layer(hub, 10, repository=THEIRS, seed=9)
    await cache.get_blob(OURS, layer.digest)
    await stored(cache, layer.digest)
    hub.reset_counts()
    return layer


@SIZES
async def test_a_stored_blob_is_not_given_to_a_repository_that_lacks_it(
    hub: FakeHub, cache: CacheRig, size: int
) -> None:
    layer = await stored_for_ours(hub, cache, size)

    replies = [await cache.send(method, path_of(THEIRS, layer.digest)) for method in ("GET", "HEAD", "GET")]

    assert [reply.status for reply in replies] == [404, 404, 404]
    assert code_of(replies[0].body) == "BLOB_UNKNOWN"
    assert hub.count("HEAD", "blob", layer.digest) == 1, "the refusal is remembered"
    await nothing_left_open(cache)


@SIZES
async def test_a_stored_blob_is_given_to_another_repository_after_one_free_head(
    hub: FakeHub, cache: CacheRig, size: int
) -> None:
    layer = await stored_for_ours(hub, cache, size)
    hub.link_blob(THEIRS, layer.digest)

    replies = [await cache.get_blob(THEIRS, layer.digest) for _ in range(3)]

    assert {(reply.status, reply.body, reply.cache_status) for reply in replies} == {
        (200, layer.content, "pullthrough; hit")
    }
    assert hub.count("HEAD", "blob", layer.digest, repository=THEIRS) == 1
    assert hub.blob_bytes_sent == 0


async def test_concurrent_requests_for_one_blob_of_another_repository_share_one_head(
    hub: FakeHub, cache: CacheRig
) -> None:
    layer = await stored_for_ours(hub, cache)
    hub.link_blob(THEIRS, layer.digest)
    hub.hang(at("blob", method="HEAD"))

    pulls = [asyncio.create_task(cache.get_blob(THEIRS, layer.digest)) for _ in range(20)]
    await hub.wait_held(count=1)
    hub.release()
    replies = await gather(*pulls)

    assert {(reply.status, reply.body) for reply in replies} == {(200, layer.content)}
    assert hub.count("HEAD", "blob", layer.digest) == 1


async def test_a_manifest_that_merely_names_a_digest_gives_no_right_to_it(hub: FakeHub, cache: CacheRig) -> None:
    layer = await stored_for_ours(hub, cache)
    claim = {"schemaVersion": 2, "layers": [{"digest": layer.digest, "size": layer.size, "mediaType": "a/b"}]}
    manifest = hub.add_manifest(THEIRS, json.dumps(claim).encode())
    assert (await cache.get_manifest(THEIRS, manifest)).status == 200

    replies = [await cache.send(method, path_of(THEIRS, layer.digest)) for method in ("GET", "HEAD")]

    assert [reply.status for reply in replies] == [404, 404]


async def test_a_running_fill_of_another_repository_is_not_given_to_one_that_lacks_it(
    hub: FakeHub, cache: CacheRig
) -> None:
    layer = add_layer(hub, repository=OURS)
    add_layer(hub, 10, repository=THEIRS, seed=9)
    hub.hold(layer.digest, after_bytes=HALF)

    async with cache.open(path_of(OURS, layer.digest)) as ours:
        await partial_has(cache, layer.digest, HALF)
        replies = [await cache.send(method, path_of(THEIRS, layer.digest)) for method in ("GET", "GET", "HEAD")]
        hub.release()
        received = await ours.read()

    assert [reply.status for reply in replies] == [404, 404, 404]
    assert received == layer.content


async def test_a_running_fill_is_joined_through_another_repository_after_a_head(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub, repository=OURS)
    hub.link_blob(THEIRS, layer.digest)
    hub.hold(layer.digest, after_bytes=HALF)

    async with cache.open(path_of(OURS, layer.digest)):
        theirs = asyncio.create_task(cache.get_blob(THEIRS, layer.digest))
        await readers(cache, layer.digest, 2)
        hub.release()
        reply = await theirs

    assert (reply.status, reply.body) == (200, layer.content)
    assert hub.count("HEAD", "blob", layer.digest, repository=THEIRS) == 1
    assert hub.count("GET", "blob", layer.digest) == 1
    assert hub.bytes_sent(layer.digest) == layer.size


async def refused_for_theirs(hub: FakeHub, cache: CacheRig, layer: Layer) -> tuple[asyncio.Task[object], ...]:
    """A fill begun for a repository that lacks the blob, and a client of the one that has it waiting for it."""
    waiting = hub.hang(at("blob", method="GET", repository=THEIRS))
    theirs = asyncio.create_task(cache.get_blob(THEIRS, layer.digest))
    await readers(cache, layer.digest, 1)
    ours = asyncio.create_task(cache.get_blob(OURS, layer.digest))
    await readers(cache, layer.digest, 2)
    waiting.release()
    return theirs, ours


async def test_a_refusal_of_another_repository_is_no_answer_for_this_one(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub, repository=OURS)
    add_layer(hub, 10, repository=THEIRS, seed=9)

    theirs, ours = await gather(*await refused_for_theirs(hub, cache, layer))

    assert (theirs.status, code_of(theirs.body)) == (404, "BLOB_UNKNOWN")
    assert (ours.status, ours.body) == (200, layer.content)
    assert hub.bytes_sent(layer.digest) == layer.size
    assert cache.blobs_on_disk() == {layer.digest}
    await nothing_left_open(cache)


async def test_a_fill_that_follows_a_refused_one_is_stored_though_its_reader_leaves(
    hub: FakeHub, cache: CacheRig
) -> None:
    """The refused fill's file was empty; taking it away late must not take away the file of the next fill."""
    layer = add_layer(hub, repository=OURS)
    add_layer(hub, 10, repository=THEIRS, seed=9)
    hub.hold(layer.digest, after_bytes=HALF)

    theirs, ours = await refused_for_theirs(hub, cache, layer)
    await theirs
    await partial_has(cache, layer.digest, HALF)
    ours.cancel()
    await readers(cache, layer.digest, 0)
    assert cache.partials_on_disk() == {layer.digest: HALF}
    hub.release()

    await stored(cache, layer.digest)
    await nothing_left_open(cache)


async def test_a_partial_of_another_repository_gives_nothing_to_one_that_lacks_the_blob(
    hub: FakeHub, cache: CacheRig
) -> None:
    layer = add_layer(hub, repository=OURS)
    add_layer(hub, 10, repository=THEIRS, seed=9)
    await cache.stop()
    (cache.directory / "partial" / layer.digest.replace(":", "-")).write_bytes(layer.content)
    await cache.start()

    theirs = await cache.get_blob(THEIRS, layer.digest)
    ours = await cache.get_blob(OURS, layer.digest)

    assert theirs.status == 404
    assert (ours.status, ours.body) == (200, layer.content)
    assert hub.blob_bytes_sent == 0, "the bytes were whole"


async def test_what_a_repository_was_shown_to_hold_survives_a_restart(hub: FakeHub, cache: CacheRig) -> None:
    layer = await stored_for_ours(hub, cache)

    await cache.restart()
    await hub.gone()
    reply = await cache.get_blob(OURS, layer.digest)
    await hub.back()

    assert (reply.status, reply.body) == (200, layer.content)
    assert await fills(cache) == []


async def test_a_manifest_asked_for_as_a_blob_keeps_its_type(hub: FakeHub, cache: CacheRig) -> None:
    """Some registries keep manifests among their blobs."""
    index = hub.add_index(OURS, "latest")
    child = index.images[0]
    hub.link_blob(OURS, hub.add_blob(child.body))
    await cache.get_manifest(OURS, index.digest)

    as_blob = await cache.get_blob(OURS, child.digest)
    as_manifest = await cache.get_manifest(OURS, child.digest)

    assert (as_blob.headers["Content-Type"], as_blob.body) == ("application/octet-stream", child.body)
    assert (as_manifest.headers["Content-Type"], as_manifest.body) == (child.media_type, child.body)
    assert hub.counted_pulls == 1, "the index alone"


async def test_a_layer_of_a_pulled_image_is_no_manifest(hub: FakeHub, cache: CacheRig) -> None:
    image = hub.add_image("acme/app", "latest")
    await cache.get_manifest("acme/app", "latest")
    assert (await cache.get_blob("acme/app", image.layers[0])).status == 200

    reply = await cache.get_manifest("acme/app", image.layers[0])

    assert reply.status == 404
