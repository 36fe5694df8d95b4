"""Several processes on one folder: who is alone there, who keeps it in order, and that nothing is lost between them."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from proxy.app import StartError
from proxy.store.locks import FolderLock, KeeperLock
from tests.blob_rig import MIB, REPOSITORY, add_layer, ranges_asked
from tests.cache_rig import CacheRig, gather
from tests.eventually import eventually
from tests.fake_hub import FakeHub

# The locks


@contextmanager
def folder_lock(path: Path) -> Iterator[FolderLock]:
    lock = FolderLock(path)
    try:
        yield lock
    finally:
        lock.release()


def test_the_first_process_is_alone_and_the_second_is_not(tmp_path: Path) -> None:
    with folder_lock(tmp_path / "lock") as first, folder_lock(tmp_path / "lock") as second:
        assert first.acquire()
        first.share()
        assert not second.acquire()
        first.release()
        second.release()
        assert first.acquire()


async def test_one_that_starts_waits_for_another_that_cleans(tmp_path: Path) -> None:
    with folder_lock(tmp_path / "lock") as first, folder_lock(tmp_path / "lock") as second:
        assert first.acquire()
        waiting = asyncio.ensure_future(asyncio.to_thread(second.acquire))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        first.share()
        assert not await waiting


def test_a_folder_that_somebody_shares_with_nobody_cannot_be_used(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("a") as file, folder_lock(tmp_path / "lock") as lock:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="shares it with nobody"):
            lock.acquire(patience=0.1)


@asynccontextmanager
async def keeper_lock(folder: Path) -> AsyncIterator[KeeperLock]:
    with ThreadPoolExecutor(1) as executor:
        lock = KeeperLock(folder / "keeper.lock", executor, retry=0.01)
        await lock.start()
        try:
            yield lock
        finally:
            await lock.aclose()


async def test_one_process_is_the_keeper_and_the_next_one_follows(tmp_path: Path) -> None:
    async with keeper_lock(tmp_path) as second_to_end:
        assert second_to_end.held
        await second_to_end.wait()
    async with keeper_lock(tmp_path) as first, keeper_lock(tmp_path) as next_one:
        waiting = asyncio.ensure_future(next_one.wait())
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert first.held and not next_one.held and not done
        await first.aclose()
        await waiting
        assert next_one.held


async def test_one_that_ends_while_it_waits_leaves_nothing_behind(tmp_path: Path) -> None:
    async with keeper_lock(tmp_path) as first:
        async with keeper_lock(tmp_path) as waiting:
            assert not waiting.held
        assert first.held
    async with keeper_lock(tmp_path) as after:
        assert after.held


# Two caches on one folder


@pytest.fixture
async def other(cache: CacheRig, hub: FakeHub) -> AsyncIterator[CacheRig]:
    """A second one, beside `cache`."""
    async with CacheRig(hub.url, cache.directory, clock=cache.clock) as running:
        yield running


async def test_both_serve_what_either_has_brought(cache: CacheRig, other: CacheRig, hub: FakeHub) -> None:
    layers = [add_layer(hub, seed=seed) for seed in (1, 2)]
    for rig, layer in zip((cache, other), layers, strict=True):
        assert (await rig.get_blob(REPOSITORY, layer.digest)).body == layer.content
    fetched = [ranges_asked(hub, layer.digest) for layer in layers]

    for rig, layer in zip((other, cache), layers, strict=True):
        reply = await rig.get_blob(REPOSITORY, layer.digest)
        assert (reply.status, reply.body) == (200, layer.content)

    assert [ranges_asked(hub, layer.digest) for layer in layers] == fetched == [[None], [None]]
    assert cache.blobs_on_disk() == {layer.digest for layer in layers}


async def test_one_of_them_keeps_the_folder_and_the_other_follows(cache: CacheRig, other: CacheRig) -> None:
    assert cache.app.store.keeper_lock.held
    assert not other.app.store.keeper_lock.held
    await cache.stop()
    await eventually(lambda: other.app.store.keeper_lock.held)
    await cache.start()
    assert not cache.app.store.keeper_lock.held


async def test_one_that_starts_removes_nothing_that_another_uses(
    cache: CacheRig, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = add_layer(hub)
    hub.hold(layer.digest, MIB // 2)
    running = asyncio.ensure_future(cache.get_blob(REPOSITORY, layer.digest))
    await hub.wait_held(layer.digest)
    await eventually(lambda: cache.partials_on_disk() == {layer.digest: MIB // 2})
    being_put = cache.directory / "partial" / "put-somebody"
    being_put.touch()
    (cache.directory / "partial" / "boot_id").write_text("another boot")

    async with CacheRig(hub.url, cache.directory, clock=cache.clock):
        assert cache.partials_on_disk() == {layer.digest: MIB // 2}
        assert being_put.exists()
        hub.release()
        assert (await running).body == layer.content

    await cache.restart()  # Alone again.
    assert not being_put.exists()


async def test_a_manifest_that_both_fetch_at_once_is_the_same_in_the_end(
    cache: CacheRig, other: CacheRig, hub: FakeHub
) -> None:
    digest = hub.add_image(REPOSITORY, "latest").digest
    replies = await gather(*(rig.get_manifest(REPOSITORY, "latest") for rig in (cache, other) for _ in range(5)))
    assert {(reply.status, reply.headers["Docker-Content-Digest"]) for reply in replies} == {(200, digest)}
    assert len({reply.body for reply in replies}) == 1


async def test_a_folder_without_locks_is_one_clear_line(cache: CacheRig, hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "keeper.lock").mkdir(parents=True)
    rig = CacheRig(hub.url, tmp_path / "elsewhere")
    with pytest.raises(StartError, match="cannot use the cache folder") as refusal:
        await rig.start()
    assert "\n" not in str(refusal.value)
    (tmp_path / "elsewhere" / "keeper.lock").rmdir()
    await rig.start()
    await rig.stop()
