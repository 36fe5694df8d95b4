"""Who goes when there is no room, by the door: last use, grace, pins, what is in use, age."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config import Share
from proxy.oci.names import Digest
from proxy.store.room.removal import Removal
from tests.blob_rig import KIB, MIB, REPOSITORY, Layer, add_layer, no_fills, nothing_left_open
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.fake_hub.library import Image
from tests.room_rig import GRACE, collect, digests, limit, pin, plan, rows, unused

DAY = 86400.0


def layers(hub: FakeHub, *sizes: int) -> list[Layer]:
    return [add_layer(hub, size, seed=seed) for seed, size in enumerate(sizes)]


async def pull(cache: CacheRig, *wanted: Layer) -> None:
    """One after the other, a second apart."""
    for layer in wanted:
        reply = await cache.get_blob(REPOSITORY, layer.digest)
        assert (reply.status, reply.body) == (200, layer.content)
        await unused(cache)
        cache.clock.advance(1)


async def pull_image(cache: CacheRig, hub: FakeHub, image: Image, repository: str = REPOSITORY) -> None:
    """The manifest and all that it names."""
    assert (await cache.get_manifest(repository, image.digest)).status == 200
    for digest in image.blobs:
        assert (await cache.get_blob(repository, digest)).status == 200
    await unused(cache)
    cache.clock.advance(1)


async def test_the_least_recently_used_go_first(hub: FakeHub, cache: CacheRig) -> None:
    await limit(cache, max_size=Share(4 * MIB))
    one, two, three, new = layers(hub, MIB, MIB, MIB, 3 * MIB // 2)
    await pull(cache, one, two, three)
    await pull(cache, one)

    await pull(cache, new)

    assert cache.blobs_on_disk() == digests(one, three, new)
    assert await cache.metric("pullthrough_evicted_blobs_total", reason="room") == 1
    assert await cache.metric("pullthrough_evicted_bytes_total", reason="room") == MIB
    assert await rows(cache) == {each.digest: each.size for each in (one, three, new)}


async def test_what_was_evicted_is_fetched_again(hub: FakeHub, cache: CacheRig) -> None:
    await limit(cache, max_size=Share(3 * MIB))
    one, two = layers(hub, 2 * MIB, 2 * MIB)
    await pull(cache, one, two, one)

    assert cache.blobs_on_disk() == digests(one)
    assert hub.cdn_count(one.digest) == 2


async def test_an_evicted_small_blob_is_not_in_memory_either(hub: FakeHub, cache: CacheRig) -> None:
    await limit(cache, max_size=Share(2 * MIB))
    small, large = layers(hub, 10 * KIB, 2 * MIB - 5 * KIB)
    await pull(cache, small, small, large, small)

    assert hub.cdn_count(small.digest) == 2


async def test_the_use_of_a_manifest_is_the_use_of_its_layers(hub: FakeHub, cache: CacheRig) -> None:
    await limit(cache, max_size=Share(5 * MIB))
    first, second, new = layers(hub, 2 * MIB, 2 * MIB, 2 * MIB)
    images = [hub.add_image(REPOSITORY, str(number), [each.digest]) for number, each in enumerate((first, second))]
    for image in images:
        await pull_image(cache, hub, image)
    await cache.get_manifest(REPOSITORY, images[0].digest)
    cache.clock.advance(1)

    await pull(cache, new)

    assert first.digest in cache.blobs_on_disk()
    assert second.digest not in cache.blobs_on_disk()


async def test_manifests_go_last(hub: FakeHub, cache: CacheRig) -> None:
    await limit(cache, max_size=Share(2 * MIB))
    image = hub.add_image(REPOSITORY, "old", [layers(hub, MIB)[0].digest])
    await pull_image(cache, hub, image)
    new = add_layer(hub, 2 * MIB - 64 * KIB, seed=7)

    await pull(cache, new)

    assert cache.blobs_on_disk() == {image.digest, new.digest}
    hub.reset_counts()
    assert (await cache.get_manifest(REPOSITORY, image.digest)).status == 200
    assert hub.counted_pulls == 0


async def test_what_was_used_within_the_grace_stays_and_what_is_new_passes_through(
    hub: FakeHub, cache: CacheRig, caplog: pytest.LogCaptureFixture
) -> None:
    await limit(cache, max_size=Share(3 * MIB), grace=GRACE)
    old, new, newer = layers(hub, 2 * MIB, 2 * MIB, 2 * MIB)
    await pull(cache, old)

    replies = []
    for layer in (new, newer):
        replies.append(await cache.get_blob(REPOSITORY, layer.digest))
        cache.clock.advance(10)

    assert [(reply.status, reply.body) for reply in replies] == [(200, new.content), (200, newer.content)]
    assert {reply.cache_status for reply in replies} == {"pullthrough; fwd=miss; detail=no-room"}
    await unused(cache)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (digests(old), {})
    assert await cache.metric("pullthrough_not_stored_total", reason="no-room") == 2
    assert len([record for record in caplog.records if "[cache] grace" in record.getMessage()]) == 1
    cache.clock.advance(GRACE)
    await pull(cache, new)
    assert cache.blobs_on_disk() == digests(new)


async def test_what_a_pinned_repository_names_is_never_evicted(hub: FakeHub, cache: CacheRig) -> None:
    await limit(cache, max_size=Share(4 * MIB), max_age=DAY)
    pinned, other, new = layers(hub, 2 * MIB, MIB, 2 * MIB)
    image = hub.add_image("library/pinned", "latest", [pinned.digest])
    await pull_image(cache, hub, image, "library/pinned")
    await pull(cache, other)
    await pin(cache, "library/pinned")

    await pull(cache, new)
    assert pinned.digest in cache.blobs_on_disk()
    assert other.digest not in cache.blobs_on_disk()

    cache.clock.advance(2 * DAY)
    await collect(cache)
    assert cache.blobs_on_disk() == {image.digest, *image.blobs}


async def test_what_a_response_is_being_read_from_is_not_evicted(hub: FakeHub, cache: CacheRig) -> None:
    await limit(cache, max_size=Share(40 * MIB))
    large, new = layers(hub, 30 * MIB, 20 * MIB)
    await pull(cache, large)

    async with cache.open(large.path) as slow:
        first = await slow.content.readexactly(1)
        during = await cache.get_blob(REPOSITORY, new.digest)
        kept = cache.blobs_on_disk()
        rest = await slow.read()
    await unused(cache)
    await pull(cache, new)

    assert (during.body, during.cache_status) == (new.content, "pullthrough; fwd=miss; detail=no-room")
    assert kept == digests(large)
    assert first + rest == large.content
    assert cache.blobs_on_disk() == digests(new)
    await nothing_left_open(cache)


async def test_what_a_slow_reader_still_reads_of_a_fill_that_has_ended_is_not_evicted(
    hub: FakeHub, cache: CacheRig
) -> None:
    await limit(cache, max_size=Share(40 * MIB))
    large, new = layers(hub, 30 * MIB, 20 * MIB)

    async with cache.open(large.path) as slow:
        await slow.content.readexactly(1)
        await no_fills(cache)
        during = await cache.get_blob(REPOSITORY, new.digest)
        assert cache.blobs_on_disk() == digests(large)
        await slow.read()

    assert during.body == new.content


async def test_what_is_older_than_max_age_goes_though_there_is_room(hub: FakeHub, cache: CacheRig) -> None:
    await limit(cache, max_age=30 * DAY, grace=GRACE)
    old, used, new = layers(hub, MIB, MIB, MIB)
    image = hub.add_image(REPOSITORY, "old", [old.digest])
    await pull_image(cache, hub, image)
    await pull(cache, used)
    cache.clock.advance(20 * DAY)
    await pull(cache, used)
    cache.clock.advance(11 * DAY)
    await pull(cache, new)
    sizes = await rows(cache)

    freed = await collect(cache)

    assert freed == sum(sizes[digest] for digest in (image.digest, *image.blobs))
    assert cache.blobs_on_disk() == digests(used, new)
    assert await cache.metric("pullthrough_evicted_blobs_total", reason="age") == 1 + len(image.blobs)
    assert await rows(cache) == {each.digest: each.size for each in (used, new)}


async def test_without_limits_nothing_is_ever_evicted(hub: FakeHub, cache: CacheRig) -> None:
    await limit(cache)
    wanted = layers(hub, MIB, MIB)
    await pull(cache, *wanted)
    cache.clock.advance(1000 * DAY)

    await collect(cache)

    assert cache.blobs_on_disk() == digests(*wanted)


async def test_a_little_room_is_kept_to_spare_without_being_asked(hub: FakeHub, cache: CacheRig) -> None:
    await limit(cache, max_size=Share(4 * MIB))
    one, two = layers(hub, 2 * MIB, 2 * MIB - KIB)

    await pull(cache, one, two)

    await eventually(lambda: cache.blobs_on_disk() == digests(two), label="the older one has gone")


async def test_the_plan_says_what_would_go_and_why_the_rest_would_not(hub: FakeHub, cache: CacheRig) -> None:
    one, two, three = layers(hub, 3 * MIB, 2 * MIB, MIB)
    await limit(cache, grace=GRACE)
    await pull(cache, one, two)
    cache.clock.advance(GRACE)
    await pull(cache, three)
    before = cache.blobs_on_disk()

    nothing = await plan(cache)
    cache.app.store.room.limit(replace(cache.config().cache, max_size=Share(2 * MIB)))
    found = await plan(cache)

    assert nothing.verdicts == []
    assert [(str(each.digest), verdict) for each, verdict in found.verdicts] == [
        (one.digest, "room"),
        (two.digest, "room"),
    ]
    assert (found.blobs["room"], found.bytes["room"]) == (2, 5 * MIB)
    cache.app.store.room.limit(replace(cache.config().cache, max_size=Share(MIB // 2)))
    assert [verdict for _, verdict in (await plan(cache)).verdicts] == ["room", "room", "grace"]
    assert cache.blobs_on_disk() == before


async def test_lower_limits_count_from_now_on(hub: FakeHub, cache: CacheRig) -> None:
    await limit(cache)
    one, two = layers(hub, 2 * MIB, MIB)
    await pull(cache, one, two)

    cache.app.store.apply(replace(cache.config().cache, max_size=Share(2 * MIB)))

    await eventually(lambda: cache.blobs_on_disk() == digests(two), label="the older one has gone")


async def test_only_the_keeper_of_the_folder_evicts(hub: FakeHub, cache: CacheRig, tmp_path: Path) -> None:
    await limit(cache, max_size=Share(3 * MIB))
    one, two, three = layers(hub, 2 * MIB, 2 * MIB, 2 * MIB)
    other = CacheRig(hub.url, cache.directory, clock=cache.clock, options=cache.options)
    async with other:
        await pull(other, one)
        await eventually(lambda: one.digest in cache.blobs_on_disk())
        reply = await other.get_blob(REPOSITORY, two.digest)

    assert (reply.body, reply.cache_status) == (two.content, "pullthrough; fwd=miss; detail=no-room")
    assert cache.blobs_on_disk() == digests(one)
    await pull(cache, three)
    assert three.digest in cache.blobs_on_disk()


async def test_a_blob_that_is_stored_while_it_is_removed_is_in_the_index(
    hub: FakeHub, cache: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = add_layer(hub)
    await pull(cache, layer)
    digest = Digest.parse(layer.digest)
    removal: Removal = cache.app.store.removal
    discard = cache.app.store.blobs.discard

    async def discard_and_store(gone: Sequence[Digest]) -> list[Digest]:
        done = await discard(gone)
        await cache.get_blob(REPOSITORY, layer.digest)
        return done

    monkeypatch.setattr(cache.app.store.blobs, "discard", discard_and_store)
    await removal.remove([digest])

    assert cache.blobs_on_disk() == {layer.digest}
    assert await rows(cache) == {layer.digest: layer.size}
    assert cache.app.store.index.blob_bytes == layer.size


async def test_whoever_leaves_while_room_is_made_leaves_nothing_behind(hub: FakeHub, cache: CacheRig) -> None:
    await limit(cache, max_size=Share(3 * MIB))
    one, two = layers(hub, 2 * MIB, 2 * MIB)
    await pull(cache, one)

    leaving = asyncio.create_task(cache.get_blob(REPOSITORY, two.digest))
    await eventually(lambda: cache.app.store.fills.running(Digest.parse(two.digest)), label="the fill runs")
    leaving.cancel()
    await eventually(lambda: cache.blobs_on_disk() == digests(two), label="it is stored all the same")

    await nothing_left_open(cache)
    assert cache.app.store.room.taken == two.size
