"""The scrub: all that is stored is read again, at its rate, from where it was; what is bad is set aside."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.config import CacheOptions
from proxy.oci.names import Digest
from proxy.policy.pace import Pace
from proxy.store.scrub.rehash import FILE_BYTES, Rehash
from proxy.store.scrub.run import Run
from tests.blob_rig import KIB, MIB, REPOSITORY, add_layer, nothing_left_open, stored
from tests.cache_rig import CacheRig, Clock
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.scrub_rig import Pauses, Stand, done, stand
from tests.test_integrity import aside, blob_path, counted, failures, name_of


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path, Clock()) as made:
        yield made


async def scrubbed(cache: CacheRig) -> None:
    """A whole run, as a person asks for it."""
    cache.app.store.scrub.begin(None)
    await done(cache.app.store.scrub)


def flip(path: Path, offset: int = 0) -> None:
    """Change one byte, and nothing that a directory shows."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


# By the door


async def test_a_run_reads_all_and_says_so(hub: FakeHub, cache: CacheRig) -> None:
    layers = [add_layer(hub, size, seed=size) for size in (10 * KIB, MIB, 3 * MIB + 1)]
    image = hub.add_image(REPOSITORY, "latest", [layer.digest for layer in layers])
    for layer in layers:
        await cache.get_blob(REPOSITORY, layer.digest)
    await cache.get_manifest(REPOSITORY, "latest")
    size = sum(layer.size for layer in layers) + len(image.body)
    before = await cache.metrics()
    cache.clock.advance(100)

    await scrubbed(cache)

    status = cache.app.store.scrub.status()
    assert (status.files, status.bytes, status.bad, status.missing) == (4, size, 0, 0)
    assert (status.position, status.started_at, status.finished_at) == (1.0, cache.clock.now, cache.clock.now)
    assert await cache.metric("pullthrough_scrub_files_total") == 4
    assert await cache.metric("pullthrough_scrub_bytes_total") == size
    finished = "pullthrough_scrub_last_finished_timestamp_seconds"
    assert not [name for name, _ in before if name == finished], "nothing has finished yet"
    assert await cache.metric(finished) == cache.clock.now
    assert aside(cache) == {}


@pytest.mark.parametrize("offset", [0, MIB, 3 * MIB], ids=["first", "middle", "last"])
async def test_a_byte_that_has_changed_is_found_and_the_next_pull_gets_the_right_ones(
    hub: FakeHub, cache: CacheRig, offset: int
) -> None:
    layer, other = add_layer(hub, 3 * MIB + 1), add_layer(hub, MIB, seed=1)
    for each in (layer, other):
        await cache.get_blob(REPOSITORY, each.digest)
        await stored(cache, each.digest)
    flip(blob_path(cache, layer.digest), offset)
    bad = blob_path(cache, layer.digest).read_bytes()

    await scrubbed(cache)
    left = await counted(cache)
    status = cache.app.store.scrub.status()
    replies = [await cache.get_blob(REPOSITORY, each.digest) for each in (layer, other)]

    assert (status.files, status.bad) == (2, 1)
    assert aside(cache) == {name_of(layer): bad}
    assert await failures(cache) == {"scrub": 1}
    assert left == (1, other.size)
    assert [reply.body for reply in replies] == [layer.content, other.content]
    assert (hub.cdn_count(layer.digest), hub.cdn_count(other.digest)) == (2, 1)
    await nothing_left_open(cache)


async def test_a_client_in_mid_answer_when_its_blob_is_found_bad_is_not_cut_off(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub, 24 * MIB)
    await cache.get_blob(REPOSITORY, layer.digest)
    await stored(cache, layer.digest)
    flip(blob_path(cache, layer.digest), layer.size - 1)

    async with cache.open(layer.path) as response:
        await response.content.readexactly(1)
        await scrubbed(cache)
        rest = await response.read()

    assert 1 + len(rest) == layer.size
    assert (await cache.get_blob(REPOSITORY, layer.digest)).body == layer.content


async def test_what_is_missing_is_counted_and_its_row_goes(hub: FakeHub, cache: CacheRig) -> None:
    layer, other = add_layer(hub), add_layer(hub, seed=1)
    for each in (layer, other):
        await cache.get_blob(REPOSITORY, each.digest)
        await stored(cache, each.digest)
    blob_path(cache, layer.digest).unlink()

    await scrubbed(cache)

    status = cache.app.store.scrub.status()
    assert (status.files, status.missing) == (1, 1)
    assert await failures(cache) == {"missing": 1}
    assert await counted(cache) == (1, other.size)
    assert (await cache.get_blob(REPOSITORY, layer.digest)).body == layer.content
    assert await failures(cache) == {"missing": 1}


async def test_one_that_is_no_keeper_scrubs_once_it_is(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    await cache.get_blob(REPOSITORY, layer.digest)
    await stored(cache, layer.digest)
    async with CacheRig(hub.url, cache.directory, clock=cache.clock) as other:
        other.app.store.scrub.begin(None)
        await scrubbed(cache)
        waiting = other.app.store.scrub.status()
        await cache.stop()
        await done(other.app.store.scrub)
        followed = other.app.store.scrub.status()
    await cache.start()

    assert (waiting.running, waiting.files) == (True, 0)
    assert followed.files == 1


async def test_a_stop_in_mid_run_leaves_nothing_open_and_the_next_start_goes_on(hub: FakeHub, cache: CacheRig) -> None:
    cache.options = {"cache": CacheOptions(directory=cache.directory, scrub_rate=64 * KIB)}
    layer = add_layer(hub, 64 * MIB)
    await cache.get_blob(REPOSITORY, layer.digest)
    await stored(cache, layer.digest)
    await cache.restart()
    cache.app.store.scrub.begin(64 * KIB)
    await eventually(lambda: cache.app.store.scrub._walking is not None, label="the scrub runs")

    await cache.restart()
    await eventually(lambda: cache.app.store.scrub.status().running, label="it goes on")
    begun = cache.app.store.scrub.status().started_at
    await cache.app.store.scrub.cancel()

    assert begun == cache.clock.now
    await nothing_left_open(cache)


# Where it goes on, and when it begins


async def contents(store: Stand, count: int, size: int = FILE_BYTES) -> list[Digest]:
    return [await store.put(number.to_bytes(2, "big") * (size // 2)) for number in range(count)]


async def test_a_restart_goes_on_where_it_was_and_reads_nothing_twice(store: Stand) -> None:
    await contents(store, 40, 4 * MIB // 40)
    pauses = Pauses(store.clock, free=3)

    async with store.scrub(rate=MIB, sleep=pauses) as scrub:
        await eventually(lambda: pauses.held)
        before = scrub.status()
    async with store.scrub(rate=MIB, sleep=Pauses(store.clock)) as scrub:
        await done(scrub)
        after = scrub.status()

    assert before.running
    assert 0 < before.files < 40
    assert 0 < before.position < 1
    assert before.seconds_left is not None
    assert (after.files, after.position, after.started_at) == (40, 1.0, before.started_at)
    assert store.total("files") == 40


async def test_where_it_was_is_written_down_every_few_seconds(store: Stand) -> None:
    await contents(store, 40)
    pauses = Pauses(store.clock, free=20)
    written: list[Run | None] = []

    async with store.scrub(rate=64 * KIB, sleep=pauses):
        await eventually(lambda: pauses.held)
        written.append(Run.parse(store.index.state("scrub")))
        pauses.release()
        await eventually(lambda: store.total("files") == 40)

    assert written[0] is not None
    assert 0 < written[0].files <= 40
    assert written[0].after is not None


async def test_a_run_begins_an_interval_after_the_last_one_began(store: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.store.scrub.LOOK_SECONDS", 0.001)
    await contents(store, 3)
    async with store.scrub(rate=MIB, interval=1000.0, sleep=Pauses(Clock())) as scrub:
        await eventually(lambda: store.total("files") == 3)
        await done(scrub)
        began = scrub.status().started_at
        store.clock.advance(999)
    async with store.scrub(rate=MIB, interval=1000.0, sleep=Pauses(Clock())) as scrub:
        await eventually(lambda: scrub.status().started_at == began)
        assert not scrub.status().running
        store.clock.advance(1)
        await eventually(lambda: store.total("files") == 6)
        await done(scrub)
        store.clock.advance(-5000)  # A clock that was wrong is no reason to wait for years.
        await eventually(lambda: store.total("files") == 9)


async def test_without_a_rate_nothing_is_read_but_when_somebody_asks(store: Stand) -> None:
    await contents(store, 3)
    async with store.scrub(rate=0) as scrub:
        await eventually(lambda: store.index.state("inventoried_at"), label="the keeper is at work")
        assert (scrub.status().running, scrub.status().started_at) == (False, None)
        scrub.begin(None)
        await done(scrub)
        assert scrub.status().files == 3


async def test_a_run_that_was_asked_for_goes_on_at_its_own_rate_after_a_restart(store: Stand) -> None:
    await contents(store, 40)
    pauses = Pauses(store.clock, free=1)
    async with store.scrub(rate=0, sleep=pauses) as scrub:
        scrub.begin(128 * KIB)
        await eventually(lambda: pauses.held)
    resumed = Pauses(store.clock)
    async with store.scrub(rate=0, sleep=resumed) as scrub:
        await done(scrub)

    assert scrub.status().files == store.total("files") == 40
    assert resumed.taken > 3


async def test_a_run_that_was_asked_for_is_known_at_once_whatever_happens_next(store: Stand) -> None:
    await contents(store, 40)
    pauses = Pauses(store.clock, free=0)
    async with store.scrub(rate=0, sleep=pauses) as scrub:
        scrub.begin(MIB)
        found = Run.parse(store.index.state("scrub"))

    assert found is not None
    assert (found.asked, found.rate, found.ended) == (True, MIB, False)


async def test_a_run_that_is_cancelled_ends_and_is_not_taken_up(store: Stand) -> None:
    await contents(store, 40)
    pauses = Pauses(store.clock, free=1)
    async with store.scrub(rate=MIB, sleep=pauses) as scrub:
        await eventually(lambda: pauses.held)
        await scrub.cancel()
        await scrub.cancel()
        assert not scrub.status().running
        assert scrub.status().finished_at is None
    async with store.scrub(rate=MIB, sleep=pauses) as scrub:
        await eventually(lambda: scrub.status().started_at)
        assert not scrub.status().running
    assert store.total("files") < 40


async def test_one_that_is_asked_for_takes_the_place_of_one_that_runs(store: Stand) -> None:
    await contents(store, 40)
    pauses = Pauses(store.clock, free=1)
    async with store.scrub(rate=MIB, sleep=pauses) as scrub:
        await eventually(lambda: pauses.held)
        read = scrub.status().files
        scrub.begin(None)
        assert (scrub.status().running, scrub.status().files) == (True, 0)
        await done(scrub)
        assert scrub.status().files == 40
    assert store.total("files") == 40 + read


async def test_a_rate_that_is_changed_holds_at_once(store: Stand) -> None:
    await contents(store, 40)
    pauses = Pauses(store.clock, free=1)
    async with store.scrub(rate=MIB, sleep=pauses) as scrub:
        await eventually(lambda: pauses.held)
        scrub.limit(CacheOptions(directory=store.directory, scrub_rate=0))
        await eventually(lambda: scrub._walking is None)
        assert scrub.status().running
        pauses.release()
        scrub.limit(CacheOptions(directory=store.directory, scrub_rate=MIB))
        await done(scrub)
    assert store.total("files") == 40


@pytest.mark.parametrize("text", [None, "", "[]", "{}", "null", '{"started_at": []}', '{"after": 3}', "\x00"])
def test_a_note_that_cannot_be_read_is_none(text: str | None) -> None:
    assert Run.parse(text) is None


@pytest.mark.parametrize(
    "run",
    [Run(1.0), Run(5.5, asked=True, rate=7, after=Digest.of(b"x"), position=0.25, files=1, bytes=2, bad=3, missing=4)],
)
def test_a_note_is_read_as_it_was_written(run: Run) -> None:
    assert Run.parse(run.dump()) == run


# Its rate


async def test_on_the_average_it_reads_no_faster_than_its_rate(store: Stand) -> None:
    await contents(store, 30, 100 * KIB)
    began = store.clock.now
    async with store.scrub(rate=500 * KIB, sleep=Pauses(store.clock)) as scrub:
        await done(scrub)
    seconds = store.clock.now - began

    assert store.total("bytes") == 30 * 100 * KIB
    assert seconds >= 30 * 100 / 500 - 1
    assert seconds < 30 * (100 + 16) / 500 + 1, "and not much slower"


async def test_small_files_cost_what_a_disk_needs_to_find_them(store: Stand) -> None:
    await contents(store, 100, 2)
    began = store.clock.now
    async with store.scrub(rate=10 * FILE_BYTES, sleep=Pauses(store.clock)) as scrub:
        await done(scrub)

    assert store.clock.now - began >= 9


def test_pace_holds_work_to_its_rate_and_forgives_little() -> None:
    pace = Pace(100.0)
    assert pace.spend(10, 0.0) == 0.0
    assert pace.spend(100, 0.0) == pytest.approx(0.85)
    assert pace.spend(100, 0.85) == pytest.approx(1.0)
    assert pace.spend(100, 1000.0) == pytest.approx(0.75)
    assert Pace(None).spend(1e12, 0.0) == 0.0


# Files that go away, and a disk that fails


async def test_what_was_evicted_in_the_meantime_is_passed_over(store: Stand) -> None:
    digests = sorted(await contents(store, 3), key=str)
    rehash = Rehash(store.blobs, MIB)
    rehash.add(digests)
    await store.blobs.discard(digests[:2])

    piece = rehash.read()

    assert (piece.files, piece.bad, piece.last) == (1, [], digests[2])
    assert not rehash


async def test_one_that_is_evicted_while_it_is_read_is_read_to_its_end(store: Stand) -> None:
    digest = await store.put(os.urandom(MIB))
    rehash = Rehash(store.blobs, 64 * KIB)
    rehash.add([digest])
    rehash.read()
    await store.blobs.discard([digest])
    pieces = []
    while rehash:
        pieces.append(rehash.read())

    assert (sum(piece.files for piece in pieces), [bad for piece in pieces for bad in piece.bad]) == (1, [])


async def test_one_that_was_stored_anew_while_the_bad_one_was_read_stays(store: Stand) -> None:
    content = os.urandom(MIB)
    digest = await store.put(content)
    flip(store.blobs.path(digest))
    rehash = Rehash(store.blobs, 2 * MIB)
    rehash.add([digest])
    (bad,) = rehash.read().bad
    await store.blobs.discard([digest])
    await store.put(content)

    assert not await store.blobs.set_aside(bad.digest, bad.status, "scrub")
    assert store.blobs.path(digest).read_bytes() == content


class FailingReads:
    """`os.preadv` fails for one file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, number: int) -> None:
        self.real, self.inode, self.number = os.preadv, path.stat().st_ino, number
        monkeypatch.setattr(os, "preadv", self)

    def __call__(self, fd: int, *arguments: Any) -> int:
        if os.fstat(fd).st_ino == self.inode:
            raise OSError(self.number, os.strerror(self.number))
        return self.real(fd, *arguments)


async def test_one_that_the_disk_does_not_give_back_is_bad(store: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = await contents(store, 5)
    FailingReads(monkeypatch, store.blobs.path(digests[2]), errno.EIO)
    async with store.scrub() as scrub:
        scrub.begin(None)
        await done(scrub)

    assert (scrub.status().files, scrub.status().bad) == (5, 1)
    assert [path.name for path in (store.directory / "bad").iterdir()] == [f"sha256-{digests[2].hex}"]
    assert store.index.blob_size(digests[2]) is None


async def test_a_failure_that_may_pass_makes_nothing_bad(
    store: Stand, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    digests = await contents(store, 5)
    FailingReads(monkeypatch, store.blobs.path(digests[2]), errno.ENOMEM)
    async with store.scrub() as scrub:
        scrub.begin(None)
        await done(scrub)

    assert (scrub.status().files, scrub.status().bad) == (4, 0)
    assert store.blobs.path(digests[2]).exists()
    assert f"cannot read {digests[2]} now" in caplog.text


async def test_a_folder_that_cannot_be_listed_is_said_and_the_others_are_read(
    store: Stand, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    digests = await contents(store, 5)
    folder = store.blobs.path(digests[2]).parent
    real = os.scandir

    def failing(path: Any) -> Any:
        if Path(path) == folder:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path)

    async with store.scrub() as scrub:
        await eventually(lambda: store.index.state("inventoried_at"))
        monkeypatch.setattr(os, "scandir", failing)
        scrub.begin(None)
        await done(scrub)

    assert (scrub.status().files, scrub.status().missing) == (4, 0)
    assert "cannot be looked at" in caplog.text


# The page cache


def resident(path: Path) -> list[bool]:
    """Which pages of the file are in the page cache (mincore(2)); looking changes nothing."""
    size = path.stat().st_size
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as mapped:
        memory = (ctypes.c_char * size).from_buffer(mapped)
        failed = ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(memory)), ctypes.c_size_t(size), pages)
        del memory
    assert not failed
    return [bool(page & 1) for page in pages]


async def test_where_files_cannot_be_read_past_the_page_cache_they_are_read_through_it(
    store: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = [await store.put(os.urandom(size)) for size in (1, 16 * KIB, MIB, 3 * MIB + 5)]
    flip(store.blobs.path(digests[-1]), 3 * MIB)
    real = os.open

    def without_direct(path: Any, flags: int, *arguments: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(path, flags, *arguments)

    monkeypatch.setattr(os, "open", without_direct)
    async with store.scrub() as scrub:
        scrub.begin(None)
        await done(scrub)

    assert (scrub.status().files, scrub.status().bad) == (4, 1)


def cooled(path: Path, start: int = 0) -> None:
    """Take the file out of the page cache, from this byte on."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, start, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


async def test_what_was_not_in_the_page_cache_is_not_there_afterwards_and_what_was_stays(store: Stand) -> None:
    cold, warm, half = [store.blobs.path(await store.put(os.urandom(5 * MIB + 7))) for _ in range(3)]
    cooled(cold)
    cooled(half, 2 * MIB)
    if any(resident(cold)):
        pytest.skip("the file system of this folder keeps every file in memory")

    async with store.scrub() as scrub:
        scrub.begin(None)
        await done(scrub)

    assert scrub.status().files == 3
    assert (sum(resident(cold)), sum(resident(warm))) == (0, len(resident(warm)))
    assert resident(half) == [number < 2 * MIB // mmap.PAGESIZE for number in range(len(resident(half)))]
