"""Room on disk, by the door: how much is ever taken, by whom, and that it is counted right."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config import Share
from tests.blob_rig import (
    KIB,
    MIB,
    REPOSITORY,
    Layer,
    add_layer,
    admit,
    nothing_left_open,
    partial_has,
    ranges_asked,
    small_pauses,
)
from tests.cache_rig import CacheRig, Reply, gather
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.room_rig import GRACE, Watch, bytes_on_disk, collect, digests, limit, mounted, rows

HALF = 512 * KIB


@pytest.fixture(autouse=True)
def asks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pauses(monkeypatch)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    with mounted(tmp_path / "disk", 16 * MIB) as directory:
        yield directory


def layers(hub: FakeHub, *sizes: int) -> list[Layer]:
    return [add_layer(hub, size, seed=seed) for seed, size in enumerate(sizes)]


def assert_whole(reply: Reply, layer: Layer) -> None:
    assert (reply.status, reply.body) == (200, layer.content)


async def leave_partial(hub: FakeHub, cache: CacheRig, layer: Layer, size: int = HALF) -> None:
    """A fill that has come so far, and a restart."""
    gate = hub.hold(layer.digest, size, times=1)
    async with cache.open(layer.path):
        await partial_has(cache, layer.digest, size)
    await cache.stop()
    gate.cut()
    await cache.start()
    assert cache.partials_on_disk() == {layer.digest: size}


# max_size


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "unknown sizes"])
async def test_fills_that_run_together_never_take_more_than_max_size(
    hub: FakeHub, cache: CacheRig, chunked: bool
) -> None:
    await limit(cache, max_size=Share(10 * MIB))
    wanted = layers(hub, *[4 * MIB] * 6)
    for layer in wanted:
        if chunked:
            hub.no_content_length(layer.digest)
        hub.hold(layer.digest, 2 * MIB)

    with Watch(cache.directory) as watch:
        pulls = [asyncio.create_task(cache.get_blob(REPOSITORY, layer.digest)) for layer in wanted]
        await eventually(lambda: hub.held() >= 4, label="many have begun")
        hub.release()
        replies = await gather(*pulls)
        again = [await cache.get_blob(REPOSITORY, layer.digest) for layer in wanted]

    for reply, layer in zip([*replies, *again], [*wanted, *wanted], strict=True):
        assert_whole(reply, layer)
    assert watch.looks > 10
    assert 4 * MIB <= watch.most <= 10 * MIB
    assert cache.app.store.room.taken == bytes_on_disk(cache.directory)


@pytest.mark.parametrize("told", [True, False], ids=["told by a manifest", "learnt from upstream"])
async def test_a_blob_larger_than_the_cache_is_passed_through(hub: FakeHub, cache: CacheRig, told: bool) -> None:
    await limit(cache, max_size=Share(3 * MIB))
    small, large = layers(hub, 2 * MIB, 4 * MIB)
    await cache.get_blob(REPOSITORY, small.digest)
    if told:
        image = hub.add_image(REPOSITORY, "large", [large.digest])
        await cache.get_manifest(REPOSITORY, image.digest)
    before = cache.blobs_on_disk()

    reply = await cache.get_blob(REPOSITORY, large.digest)

    assert_whole(reply, large)
    assert reply.cache_status == "pullthrough; fwd=miss; detail=too-large"
    assert hub.bytes_sent(large.digest) <= large.size if told else 2 * large.size
    assert hub.cdn_count(large.digest) == (1 if told else 2)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (before, {}), "nothing was evicted for it"
    assert await cache.metric("pullthrough_not_stored_total", reason="too-large") == 1


async def test_a_blob_of_unknown_size_that_grows_out_of_the_cache_is_passed_through(
    hub: FakeHub, cache: CacheRig
) -> None:
    await limit(cache, max_size=Share(3 * MIB))
    large = add_layer(hub, 6 * MIB)
    hub.no_content_length(large.digest)

    with Watch(cache.directory) as watch:
        reply = await cache.get_blob(REPOSITORY, large.digest)

    assert_whole(reply, large)
    assert watch.most <= 3 * MIB
    assert cache.blobs_on_disk() == set()


async def test_a_blob_of_unknown_size_that_just_fits_is_stored(hub: FakeHub, cache: CacheRig) -> None:
    await limit(cache, max_size=Share(8 * MIB))
    layer = add_layer(hub, 7 * MIB)
    hub.no_content_length(layer.digest)

    assert_whole(await cache.get_blob(REPOSITORY, layer.digest), layer)

    assert cache.blobs_on_disk() == {layer.digest}


async def test_limits_in_percent_are_of_the_whole_file_system(cache: CacheRig) -> None:
    total = os.statvfs(cache.directory).f_blocks * os.statvfs(cache.directory).f_frsize
    await limit(cache, max_size=Share(50, percent=True), min_free=Share(10, percent=True))

    room = cache.app.store.room

    assert room.max_size == total // 2
    assert room.could_ever_hold(total // 2)
    assert not room.could_ever_hold(total // 2 + 1)
    room.limit(replace(cache.config().cache, max_size=Share(0)))
    assert room.could_ever_hold(int(total * 0.89))
    assert not room.could_ever_hold(int(total * 0.91))


async def test_the_metrics_tell_the_room(hub: FakeHub, cache: CacheRig) -> None:
    assert await cache.metric("pullthrough_cache_max_bytes") is None, "no limit is not 0"
    await limit(cache, max_size=Share(3 * MIB))

    assert await cache.metric("pullthrough_cache_max_bytes") == 3 * MIB
    assert (await cache.metric("pullthrough_cache_free_bytes") or 0) > 0
    assert await cache.metric("pullthrough_cache_partial_bytes") == 0
    assert (await cache.status())["cache"].items() >= {"max_bytes": 3 * MIB, "partial_bytes": 0}.items()


async def test_a_restart_keeps_the_accounts(hub: FakeHub, cache: CacheRig) -> None:
    await limit(cache, max_size=Share(5 * MIB))
    one, two, three = layers(hub, MIB, MIB, 2 * MIB)
    await cache.get_blob(REPOSITORY, one.digest)
    await leave_partial(hub, cache, two)

    assert cache.app.store.room.taken == MIB + HALF == bytes_on_disk(cache.directory)
    assert await cache.metric("pullthrough_cache_partial_bytes") == HALF
    assert_whole(await cache.get_blob(REPOSITORY, two.digest), two)
    assert cache.app.store.room.taken == 2 * MIB
    assert_whole(await cache.get_blob(REPOSITORY, three.digest), three)
    assert cache.app.store.room.taken == bytes_on_disk(cache.directory) == 4 * MIB


async def test_what_unfinished_fills_left_goes_before_any_blob_and_whatever_the_grace(
    hub: FakeHub, cache: CacheRig
) -> None:
    await limit(cache, max_size=Share(4 * MIB), grace=GRACE)
    stored, unfinished, new = layers(hub, MIB, 3 * MIB, 2 * MIB)
    await cache.get_blob(REPOSITORY, stored.digest)
    await leave_partial(hub, cache, unfinished, 2 * MIB)

    assert_whole(await cache.get_blob(REPOSITORY, new.digest), new)

    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (digests(stored, new), {})
    assert await cache.metric("pullthrough_evicted_bytes_total", reason="leftover") == 2 * MIB


async def test_what_an_unfinished_fill_left_long_ago_goes_though_there_is_room(hub: FakeHub, cache: CacheRig) -> None:
    old, new = layers(hub, MIB, MIB)
    for layer, hours in ((old, 25), (new, 23)):
        path = cache.directory / "partial" / layer.digest.replace(":", "-")
        path.write_bytes(layer.content[:HALF])
        os.utime(path, times=(0, cache.clock.now - hours * 3600))

    await limit(cache, max_age=86400.0)
    await collect(cache)

    assert cache.partials_on_disk() == {new.digest: HALF}
    assert cache.app.store.room.taken == HALF


async def test_a_fill_goes_on_from_what_was_left_though_there_is_hardly_room(hub: FakeHub, cache: CacheRig) -> None:
    await limit(cache, max_size=Share(MIB + 20 * KIB))
    layer = add_layer(hub)
    await leave_partial(hub, cache, layer)

    assert_whole(await cache.get_blob(REPOSITORY, layer.digest), layer)

    assert hub.bytes_sent(layer.digest) == layer.size, "nothing is fetched twice"
    assert cache.blobs_on_disk() == {layer.digest}


async def test_a_manifest_evicts_others_and_is_answered_even_if_it_cannot_be_stored(
    hub: FakeHub, cache: CacheRig
) -> None:
    await limit(cache, max_size=Share(MIB + 100), grace=GRACE)
    layer = add_layer(hub)
    images = [hub.add_image(REPOSITORY, tag) for tag in ("one", "two")]
    await cache.get_blob(REPOSITORY, layer.digest)

    first = await cache.get_manifest(REPOSITORY, images[0].digest)
    again = await cache.get_manifest(REPOSITORY, images[0].digest)
    unstored = cache.blobs_on_disk()
    cache.clock.advance(GRACE)
    second = await cache.get_manifest(REPOSITORY, images[1].digest)

    assert (first.status, first.body, again.body) == (200, images[0].body, images[0].body)
    assert unstored == digests(layer)
    assert (second.status, second.body) == (200, images[1].body)
    assert cache.blobs_on_disk() == {images[1].digest}
    assert hub.counted_pulls == 2


async def test_room_that_takes_long_to_make_is_not_waited_for(
    hub: FakeHub, cache: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await limit(cache, max_size=Share(3 * MIB))
    old, new = layers(hub, 2 * MIB, 2 * MIB)
    await cache.get_blob(REPOSITORY, old.digest)
    monkeypatch.setattr("proxy.store.room.PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(cache.app.store.removal, "remove", lambda digests: asyncio.Event().wait())

    reply = await cache.get_blob(REPOSITORY, new.digest)

    assert_whole(reply, new)
    assert reply.cache_status == "pullthrough; fwd=miss; detail=no-room"


# The disk itself


async def test_looks_at_the_disk_that_overtake_one_another_lose_no_byte(
    cache: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old look that comes late must not be taken together with what was written after it."""
    await limit(cache)
    room, claims, written = cache.app.store.room, cache.app.store.claims, [0]
    claim = claims.open(0, lambda: written[0])
    await claim.grow(4 * MIB)
    looked, late = threading.Event(), threading.Event()
    total, free = 1000 * MIB, 100 * MIB

    def look() -> tuple[int, int]:
        if looked.is_set():
            return total, free - written[0]
        looked.set()
        late.wait(10)
        return total, free

    monkeypatch.setattr(room, "_stat", look)
    first = asyncio.create_task(room.measure())
    await eventually(looked.is_set)
    written[0] = 3 * MIB
    await room.measure()
    in_order = room.missing(0)
    late.set()
    await first

    assert in_order == 4 * MIB - free
    assert room.missing(0) == 4 * MIB - free
    claim.release()
    assert room.missing(0) == 3 * MIB - free, "what is on disk now was not there when it was looked at"


async def test_min_free_stays_free_also_while_large_fills_run(hub: FakeHub, small_disk: Path) -> None:
    async with CacheRig(hub.url, small_disk / "cache") as cache:
        await limit(cache, min_free=Share(6 * MIB))
        wanted = layers(hub, *[3 * MIB] * 5)
        for layer in wanted:
            hub.hold(layer.digest, MIB)
        with Watch(cache.directory) as watch:
            pulls = [asyncio.create_task(cache.get_blob(REPOSITORY, layer.digest)) for layer in wanted]
            await eventually(lambda: hub.held() >= 4, label="many have begun")
            hub.release()
            replies = await gather(*pulls)
            again = [await cache.get_blob(REPOSITORY, layer.digest) for layer in wanted]

    for reply, layer in zip([*replies, *again], [*wanted, *wanted], strict=True):
        assert_whole(reply, layer)
    assert watch.least_free >= 6 * MIB, "but for the index, whose growth is not known in advance"
    assert watch.most >= 3 * MIB


@pytest.mark.parametrize("min_free", [0, 2 * MIB], ids=["full to the brim", "min_free"])
async def test_a_disk_that_is_full_of_other_things_breaks_no_pull(
    hub: FakeHub, small_disk: Path, min_free: int
) -> None:
    layer = add_layer(hub, 4 * MIB)
    async with CacheRig(hub.url, small_disk / "cache") as cache:
        await limit(cache, min_free=Share(min_free))
        await admit(hub, cache, layer)
        fill_up(small_disk / "others", leaving=MIB)

        full = await cache.get_blob(REPOSITORY, layer.digest)
        left = cache.blobs_on_disk(), cache.partials_on_disk()
        (small_disk / "others").unlink()
        cache.clock.advance(10)
        free = await cache.get_blob(REPOSITORY, layer.digest)
        stored = cache.blobs_on_disk()

    assert_whole(full, layer)
    assert left == (set(), {})
    assert (free.cache_status, stored) == ("pullthrough; fwd=miss; stored", {layer.digest})


@pytest.mark.parametrize("chunked", [False, True], ids=["in a thread", "on the loop"])
async def test_readers_at_any_offset_go_on_past_a_disk_that_becomes_full_under_a_fill(
    hub: FakeHub, small_disk: Path, chunked: bool
) -> None:
    layer = add_layer(hub, 8 * MIB)
    size = layer.size
    ranges = {"0-": (0, size), f"{5 * MIB}-{6 * MIB}": (5 * MIB, 6 * MIB + 1), "-100": (size - 100, size)}
    async with CacheRig(hub.url, small_disk / "cache") as cache:
        await cache.head_blob(REPOSITORY, layer.digest)
        if chunked:
            hub.no_content_length(layer.digest)
        hub.hold(layer.digest, 2 * MIB, times=1)

        pulls = [
            asyncio.create_task(cache.get_blob(REPOSITORY, layer.digest, Range=f"bytes={each}")) for each in ranges
        ]
        await partial_has(cache, layer.digest, 2 * MIB)
        fill_up(small_disk / "others", leaving=2 * MIB)
        hub.release()
        replies = await gather(*pulls)

        await nothing_left_open(cache)
        assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {})
        await eventually(lambda: cache.app.store.room.taken == 0, label="the room is given back")
        assert await cache.metric("pullthrough_not_stored_total", reason="disk") == 3

    for reply, (start, stop) in zip(replies, ranges.values(), strict=True):
        assert (reply.status, reply.body) == (206, layer.content[start:stop])


async def test_a_disk_that_becomes_full_under_a_fill_is_relieved_of_what_is_old(hub: FakeHub, small_disk: Path) -> None:
    old, layer = layers(hub, 5 * MIB, 6 * MIB)
    async with CacheRig(hub.url, small_disk / "cache") as cache:
        await limit(cache)
        await cache.get_blob(REPOSITORY, old.digest)
        cache.clock.advance(1)
        hub.hold(layer.digest, MIB, times=1)

        pull = asyncio.create_task(cache.get_blob(REPOSITORY, layer.digest))
        await partial_has(cache, layer.digest, MIB)
        fill_up(small_disk / "others", leaving=2 * MIB)
        hub.release()

        assert_whole(await pull, layer)
        assert cache.blobs_on_disk() == {layer.digest}
        first, resumed = ranges_asked(hub, layer.digest)
        assert first is None
        assert int((resumed or "").removeprefix("bytes=").removesuffix("-")) > MIB, "it goes on where it was"


async def test_a_disk_without_a_byte_left_is_relieved_of_what_is_old(hub: FakeHub, small_disk: Path) -> None:
    """The index cannot be written to then, before something has gone."""
    old, layer = layers(hub, 5 * MIB, 4 * MIB)
    async with CacheRig(hub.url, small_disk / "cache") as cache:
        await limit(cache)
        await cache.get_blob(REPOSITORY, old.digest)
        cache.clock.advance(1)
        assert await rows(cache) == {old.digest: old.size}
        fill_up(small_disk / "others", leaving=0)
        assert (await cache.head_blob(REPOSITORY, old.digest)).status == 200

        assert_whole(await cache.get_blob(REPOSITORY, layer.digest), layer)

        assert cache.blobs_on_disk() == {layer.digest}
        assert cache.app.store.room.taken == layer.size


def fill_up(path: Path, leaving: int) -> None:
    """Somebody else's file takes all but so many bytes of a disk."""
    found = os.statvfs(path.parent)
    with path.open("wb") as file:
        try:
            file.write(b"x" * (found.f_bavail * found.f_frsize - leaving))
        except OSError as error:
            assert error.errno == errno.ENOSPC


# Other processes


async def test_a_blob_that_another_process_is_storing_is_passed_through(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    await admit(hub, cache, layer)
    theirs = os.open(cache.directory / "partial" / layer.digest.replace(":", "-"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(theirs, fcntl.LOCK_EX)
    os.write(theirs, layer.content[:6])

    meanwhile = await cache.get_blob(REPOSITORY, layer.digest)
    untouched = cache.partials_on_disk()
    os.close(theirs)
    afterwards = await cache.get_blob(REPOSITORY, layer.digest)

    assert_whole(meanwhile, layer)
    assert meanwhile.cache_status == "pullthrough; fwd=miss; detail=locked"
    assert untouched == {layer.digest: 6}
    assert_whole(afterwards, layer)
    assert ranges_asked(hub, layer.digest) == [None, "bytes=6-"]
    assert await rows(cache) == {layer.digest: layer.size}


async def test_two_processes_on_one_folder_store_a_blob_once_and_both_serve_it(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub, 3 * MIB)
    async with CacheRig(hub.url, cache.directory, clock=cache.clock) as other:
        await gather(admit(hub, cache, layer), admit(hub, other, layer))
        hub.hold(layer.digest, MIB)
        pulls = [asyncio.create_task(each.get_blob(REPOSITORY, layer.digest)) for each in (cache, other, cache, other)]
        await hub.wait_held(layer.digest, 3)
        hub.release()
        replies = await gather(*pulls)
        hits = await gather(*(each.get_blob(REPOSITORY, layer.digest) for each in (cache, other)))

    for reply in (*replies, *hits):
        assert_whole(reply, layer)
    assert {reply.cache_status for reply in hits} == {"pullthrough; hit"}
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == ({layer.digest}, {})
