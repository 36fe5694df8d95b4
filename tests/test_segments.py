"""A large blob over several connections, where one is slow: by the door, with every way in which that can go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from proxy.config import Share, UpstreamOptions
from proxy.policy.segments import Speed
from proxy.store.fills.scratch import Scratch, ScratchFailed
from tests.authority import Authority
from tests.blob_rig import (
    KIB,
    MIB,
    REPOSITORY,
    Layer,
    add_layer,
    assert_never_whole,
    assert_next_pull_succeeds,
    nothing_left_open,
    path_of,
    ranges_asked,
    read_until_broken,
    small_pauses,
)
from tests.cache_rig import CacheRig, gather
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.room_rig import GRACE, limit
from tests.segments_rig import (
    SEGMENT,
    is_segment,
    outcome,
    over_tls,
    segments_asked,
    slow,
    small_segments,
)
from tests.test_crash import serving

SIZE = 14 * SEGMENT + 12345
SLACK = 4 * MIB
"""What may be under way on the first connection when it is closed."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pauses(monkeypatch)
    small_segments(monkeypatch)


@pytest.fixture
def layer(hub: FakeHub) -> Layer:
    slow(hub)
    return add_layer(hub, SIZE)


async def configure(cache: CacheRig, **settings: object) -> None:
    """Start anew with these settings of the upstream."""
    await cache.stop()
    cache.options = {"upstreams": (replace(cache.config().upstreams[0], **settings),)}  # type: ignore[arg-type]
    await cache.start()


async def assert_right(cache: CacheRig, layer: Layer) -> None:
    """The blob can be pulled, is stored, and nothing is left of the pull."""
    reply = await cache.get_blob(REPOSITORY, layer.digest)
    assert (reply.status, reply.body) == (200, layer.content)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == ({layer.digest}, {})
    await nothing_left_open(cache)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("segments")]
    assert cache.app.store.room.taken == layer.size


async def test_a_slow_blob_comes_over_several_connections_and_each_byte_once(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    gate = hub.hold(is_segment, 100)

    pull = asyncio.create_task(assert_right(cache, layer))
    await hub.wait_held(is_segment, 3)
    gate.release()
    await pull

    asked = segments_asked(hub)
    assert len(asked) == len(set(asked)) >= 6
    assert hub.bytes_sent(layer.digest) <= layer.size + SLACK
    assert hub.count("GET", "blob", layer.digest) == 1, "a segment is asked for where the first redirect led"
    assert hub.violations == []
    assert await outcome(cache, "whole") == 1


async def test_the_first_connection_goes_on_while_the_others_are_made_and_readers_never_see_a_hole(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    """The second segment waits, the later ones arrive: what can be read ends where the second begins."""
    second = hub.hold(lambda request: is_segment(request) and segments_asked(hub)[:1] == [request.range], 1000)
    async with cache.open(layer.path) as response:
        head = await response.content.readexactly(2 * SEGMENT)
        await hub.wait_held()
        await eventually(lambda: len(segments_asked(hub)) >= 4, label="the others have run ahead")
        start = int(segments_asked(hub)[0].removeprefix("bytes=").partition("-")[0])
        await eventually(lambda: cache.partials_on_disk().get(layer.digest) == start + 1000)
        async with cache.open(layer.path, {"Range": f"bytes={start}-{start + 999}"}) as part:
            assert await part.read() == layer.content[start : start + 1000]
        second.release()
        assert head + await response.read() == layer.content
    await cache.settled()
    assert cache.blobs_on_disk() == {layer.digest}


async def test_readers_at_any_offset_get_their_part(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    offsets = [0, 1, 5 * SEGMENT + 7, SIZE - 1]
    replies = await gather(
        *(cache.get_blob(REPOSITORY, layer.digest, Range=f"bytes={offset}-") for offset in offsets),
        cache.get_blob(REPOSITORY, layer.digest),
    )
    assert [reply.body for reply in replies] == [*(layer.content[offset:] for offset in offsets), layer.content]
    assert ranges_asked(hub, layer.digest).count(None) == 1
    assert await outcome(cache, "whole") == 1


@pytest.mark.parametrize("setting", [{"connections": 1}, {"transfers": 1}], ids=str)
async def test_one_connection_where_no_more_are_allowed(
    hub: FakeHub, cache: CacheRig, layer: Layer, setting: dict[str, object]
) -> None:
    await configure(cache, **setting)
    await assert_right(cache, layer)
    assert ranges_asked(hub, layer.digest) == [None]
    assert await outcome(cache, "refused") == 0, "nothing was tried"


async def test_further_connections_are_transfers_too(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    await configure(cache, transfers=2)
    gate = hub.hold(is_segment, 100)
    pull = asyncio.create_task(assert_right(cache, layer))
    await hub.wait_held(is_segment, 2)  # One beside the first connection, and one in its stead.
    assert len(segments_asked(hub)) == 2
    gate.release()
    await pull
    assert await outcome(cache, "whole") == 1


async def test_a_blob_of_which_little_is_left_is_not_worth_it(hub: FakeHub, cache: CacheRig) -> None:
    slow(hub, (16 * KIB, 0.002))
    layer = add_layer(hub, 4 * SEGMENT + 16 * KIB)  # Until it is known to be slow more than that has come.
    await assert_right(cache, layer)
    assert ranges_asked(hub, layer.digest) == [None]


async def test_one_connection_while_upstream_says_that_it_is_asked_too_much(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    gate = hub.hold(layer.digest, 100 * KIB, times=1)
    async with cache.open(layer.path) as response:
        await hub.wait_held(layer.digest)
        hub.abuse_limit()
        assert (await cache.get_manifest(REPOSITORY, "latest")).status == 429
        gate.release()
        assert await response.read() == layer.content
    assert ranges_asked(hub, layer.digest) == [None]


async def test_an_upstream_that_ignores_ranges_is_remembered(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    hub.no_range(is_segment)
    other = add_layer(hub, SIZE, seed=1)

    await assert_right(cache, layer)
    first = len(segments_asked(hub))
    reply = await cache.get_blob(REPOSITORY, other.digest)

    assert 1 <= first <= 3
    assert reply.body == other.content
    assert len(segments_asked(hub)) == first
    whole = [asked for asked in ranges_asked(hub, layer.digest) if asked is None or asked.endswith("-")]
    assert whole == [None], "the first connection just went on"
    assert await outcome(cache, "refused") == 1

    cache.clock.advance(3600)
    again = add_layer(hub, SIZE, seed=2)
    hub.heal(is_segment)
    assert (await cache.get_blob(REPOSITORY, again.digest)).body == again.content
    assert len(segments_asked(hub)) > first


Fault = Callable[[FakeHub, int | None], object]
FAULTS: dict[str, Fault] = {
    "breaks": lambda hub, times: hub.cut(is_segment, 300 * KIB, times=times),
    "breaks at once": lambda hub, times: hub.cut(is_segment, 0, times=times),
    "is short": lambda hub, times: hub.truncate(is_segment, 300 * KIB, times=times),
    "500": lambda hub, times: hub.fail(is_segment, 500, times=times),
    "403": lambda hub, times: hub.fail(is_segment, 403, times=times),
    "416": lambda hub, times: hub.fail(is_segment, 416, times=times),
    "429": lambda hub, times: hub.fail(is_segment, 429, retry_after=30, times=times),
    "200": lambda hub, times: hub.no_range(is_segment, times=times),
    "another range": lambda hub, times: hub.change(
        is_segment, lambda answer: setattr(answer, "window", (5, 5 + SEGMENT)), times=times, content_only=True
    ),
    "another size": lambda hub, times: hub.truncate(is_segment, SEGMENT, honest_length=True, times=times),
    "another ETag": lambda hub, times: hub.change(
        is_segment, lambda answer: answer.headers.update({"etag": '"other"'}), times=times, content_only=True
    ),
    "no HTTP": lambda hub, times: hub.garbage(is_segment, times=times),
    "chunked": lambda hub, times: hub.no_content_length(is_segment, times=times),
}


REFUSALS = ("416", "429", "200", "another range", "another size")


@pytest.mark.parametrize(
    ("name", "when"),
    [*((name, "later") for name in FAULTS), *((name, "always") for name in ("breaks", "no HTTP", *REFUSALS))],
)
async def test_whatever_goes_wrong_with_segments_the_blob_is_right(
    hub: FakeHub, cache: CacheRig, layer: Layer, name: str, when: str
) -> None:
    if when == "later":
        gate = hub.hold(is_segment, 500 * KIB)
        pull = asyncio.create_task(assert_right(cache, layer))
        await hub.wait_held(is_segment, 4)  # The first connection is gone.
        FAULTS[name](hub, 2)
        gate.release()
        await pull
    else:
        FAULTS[name](hub, None)
        await assert_right(cache, layer)
    assert not [text for text in hub.violations if "itself" in text]
    if name not in REFUSALS and when == "later":
        assert await outcome(cache, "whole") == 1, "only the segment was asked for again"
    if name in REFUSALS and when == "always":
        assert await outcome(cache, "refused") == 1, "the first connection just went on"
    if name == "another ETag":
        assert hub.count("GET", "blob", layer.digest) > 1, "a fresh redirect was asked for"


async def test_a_429_of_the_registry_itself_to_a_segment_is_waited_for(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    hub.direct_blobs = True
    gate = hub.hold(is_segment, 500 * KIB)
    pull = asyncio.create_task(assert_right(cache, layer))
    await hub.wait_held(is_segment, 4)  # The first connection is gone.
    hub.fail(is_segment, 429, retry_after=1, times=1)
    gate.release()

    async def closed() -> bool:
        return (await cache.status())["upstreams"][0]["requests_closed_seconds"] is not None

    await eventually(closed)
    cache.clock.advance(5)
    await pull
    assert await outcome(cache, "broken") == 1


async def test_an_expired_signed_url_is_asked_for_anew(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    gate = hub.hold(is_segment, 500 * KIB, times=3)
    pull = asyncio.create_task(assert_right(cache, layer))
    await hub.wait_held(is_segment, 3)
    hub.expire_urls()
    gate.release()
    await pull

    assert 2 <= hub.count("GET", "blob", layer.digest) <= 5
    assert hub.bytes_sent(layer.digest) <= layer.size + SLACK
    assert await outcome(cache, "whole") == 1


@pytest.mark.parametrize("after", [0, 300 * KIB])
async def test_a_segment_that_is_stuck_is_asked_for_again_while_the_others_go_on(
    hub: FakeHub, cache: CacheRig, layer: Layer, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr("proxy.policy.segments.STUCK_SECONDS", 0.3)
    monkeypatch.setattr("proxy.policy.segments.STUCK_FACTOR", 0.0)
    cache.idle_timeout = 60.0
    await cache.restart()
    gate = hub.hold(is_segment, after, times=1)

    await assert_right(cache, layer)
    gate.release()

    starts = [asked.partition("-")[0] for asked in segments_asked(hub)]
    ends = [asked.partition("-")[2] for asked in segments_asked(hub)]
    assert len(ends) == len(set(ends)) + 1, "one segment was asked for twice"
    assert (len(starts) == len(set(starts))) == bool(after), "from where it was"
    assert await outcome(cache, "whole") == 1


async def test_wrong_bytes_in_a_segment_never_arrive_whole(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    hub.corrupt(is_segment, SIZE - 5 * SEGMENT)

    received = await read_until_broken(cache, layer.path)

    assert_never_whole(received, layer)
    await cache.settled()
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {})
    hub.heal()
    await assert_next_pull_succeeds(hub, cache, layer)


async def test_without_room_to_spare_one_connection_has_to_do(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    await limit(cache, max_size=Share(SIZE + 2 * SEGMENT))
    old = add_layer(hub, SEGMENT, seed=1)
    await cache.get_blob(REPOSITORY, old.digest)
    cache.clock.advance(2 * GRACE)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    assert cache.blobs_on_disk() == {old.digest, layer.digest}, "nothing was evicted for it"
    assert ranges_asked(hub, layer.digest) == [None]


@pytest.mark.parametrize("writes", [0, 3, 30])
async def test_a_disk_that_does_not_take_what_comes_early_ends_only_that(
    hub: FakeHub, cache: CacheRig, layer: Layer, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    left = [writes]
    write = Scratch.write

    def failing(self: Scratch, offset: int, pieces: Sequence[bytes]) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise ScratchFailed("no space left on device")
        return write(self, offset, pieces)

    monkeypatch.setattr(Scratch, "write", failing)
    await assert_right(cache, layer)


async def test_a_stop_in_mid_segment_leaves_a_partial_that_is_right(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    hub.hold(is_segment, 700 * KIB)
    async with cache.open(layer.path) as response:
        await response.content.readexactly(1000)
        await hub.wait_held(is_segment, 3)
    await cache.stop()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(("segments", "fill"))]
    await eventually(lambda: hub.held(is_segment) == 0, label="the connections to upstream are closed")

    name = f"sha256-{layer.digest[7:]}"
    assert layer.content.startswith((cache.directory / "partial" / name).read_bytes())
    hub.heal(is_segment)
    await cache.start()
    await assert_right(cache, layer)


async def test_a_kill_in_mid_segment_leaves_a_partial_that_is_right(hub: FakeHub, tmp_path: Path) -> None:
    """In a process of its own, so with segments of 8 MiB."""
    directory = tmp_path / "cache"
    slow(hub, (256 * KIB, 0.004))
    layer = add_layer(hub, 72 * MIB)
    hub.hold(is_segment, 3 * MIB)
    path = path_of(REPOSITORY, layer.digest)
    async with (
        serving(directory, hub) as url,
        aiohttp.ClientSession() as session,
        session.get(url + path) as response,
    ):
        await response.content.readexactly(1000)
        await hub.wait_held(is_segment, 4)
    hub.heal(is_segment)

    (partial,) = (directory / "partial").glob("sha256-*")
    kept = partial.read_bytes()
    assert len(kept) >= 16 * MIB
    assert layer.content.startswith(kept)
    assert [path.name for path in partial.parent.iterdir() if path.name.startswith("put-")] == []

    before = hub.bytes_sent(layer.digest)
    async with serving(directory, hub) as url, aiohttp.ClientSession() as session:
        async with session.get(url + path) as response:
            assert await response.read() == layer.content
        await eventually(lambda: not partial.exists(), label="the blob has its name")
    assert hub.bytes_sent(layer.digest) - before <= layer.size - len(kept) + SLACK


async def test_over_https_too(hub: FakeHub, tmp_path: Path) -> None:
    authority = Authority()
    slow(hub)
    layer = add_layer(hub, SIZE)
    async with over_tls(hub, authority, tmp_path) as url:
        upstream = UpstreamOptions(name="docker.io", url=url, ca=authority.write(tmp_path))
        async with CacheRig(url, tmp_path / "cache", options={"upstreams": (upstream,)}) as cache:
            await assert_right(cache, layer)
            assert await outcome(cache, "whole") == 1
            assert hub.bytes_sent(layer.digest) <= layer.size + SLACK


@pytest.mark.parametrize(
    ("notes", "is_slow"),
    [
        ([(0.1, 5_000_000, False)] * 2, True),
        ([(0.1, 5_000_000, False)], False),
        ([(0.1, 9_000_000, False)] * 20, False),
        ([(0.1, 1_000_000, True)] * 20, False),  # It was waiting for us.
        ([(0.1, 50_000 * 2**turn, False) for turn in range(7)] + [(0.1, 9_000_000, False)], False),
        ([(0.1, 50_000 * 1.3**turn, False) for turn in range(12)], True),
        ([(0.1, 9_000_000, False), (0.5, 1000, False), (0.1, 9_000_000, False)] * 3, False),
        ([(0.1, 9_000_000, False)] * 5 + [(0.1, 1_000_000, False)] * 2, True),
    ],
    ids=["steady", "too soon", "fast", "we are slow", "slow start", "ever growing", "hiccups", "slow later"],
)
def test_one_connection_is_slow_when_it_brings_little_and_not_ever_more(
    notes: list[tuple[float, int, bool]], is_slow: bool
) -> None:
    speed = Speed()
    for seconds, received, full in notes:
        speed.note(seconds, int(received), full=full)
    assert speed.is_slow == is_slow
