"""What goes bad on disk is noticed, set aside and fetched anew; who asks for it gets no error and no wrong bytes."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from proxy.clock import SystemClock
from proxy.metrics import Metrics
from proxy.oci.names import Digest
from proxy.store.bad_files import BadFiles
from proxy.store.blobs import Blobs
from proxy.store.index import Index
from proxy.store.integrity import Integrity
from tests.blob_rig import KIB, MIB, REPOSITORY, Layer, add_layer, nothing_left_open, read_until_broken, stored
from tests.cache_rig import CacheRig, Reply
from tests.fake_hub import FakeHub


def blob_path(cache: CacheRig, digest: str) -> Path:
    algorithm, _, encoded = digest.partition(":")
    return cache.directory / "blobs" / algorithm / encoded[:2] / encoded


def aside(cache: CacheRig) -> dict[str, bytes]:
    """What was set aside, by name."""
    return {path.name: path.read_bytes() for path in (cache.directory / "bad").glob("*")}


async def failures(cache: CacheRig) -> dict[str, float]:
    """What was counted, without zeros."""
    metrics = await cache.metrics()
    found = {dict(labels)["found"]: n for (name, labels), n in metrics.items() if "integrity_failures" in name}
    assert found.keys() == {"opened", "read", "scrub", "missing"}, "a series that starts at 0 has a rate at once"
    return {each: number for each, number in found.items() if number}


async def held(hub: FakeHub, cache: CacheRig, size: int = MIB) -> Layer:
    """A blob that the cache has on disk, and not in memory."""
    layer = add_layer(hub, size, seed=7)
    await cache.get_blob(REPOSITORY, layer.digest)
    await stored(cache, layer.digest)
    await cache.restart()
    hub.reset_counts()
    return layer


async def counted(cache: CacheRig) -> tuple[int, int]:
    """How many blobs the index has, and their bytes."""
    found = (await cache.status())["cache"]
    return found["blobs"], found["bytes"]


def name_of(layer: Layer) -> str:
    return layer.digest.replace(":", "-")


# What is found, and what follows


@pytest.mark.parametrize("size", [10 * KIB, MIB], ids=["small", "large"])
@pytest.mark.parametrize("length", [0, 5 * KIB, 2 * MIB], ids=["empty", "shorter", "longer"])
async def test_a_blob_of_another_size_is_set_aside_counted_and_fetched_again_in_the_same_request(
    hub: FakeHub, cache: CacheRig, size: int, length: int
) -> None:
    layer = await held(hub, cache, size)
    path = blob_path(cache, layer.digest)
    os.truncate(path, length)
    bad = path.read_bytes()

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    assert aside(cache) == {name_of(layer): bad}
    assert await failures(cache) == {"opened": 1}
    assert await counted(cache) == (1, size)
    assert path.read_bytes() == layer.content
    await nothing_left_open(cache)


async def test_small_content_with_other_bytes_is_found_when_it_is_read(hub: FakeHub, cache: CacheRig) -> None:
    layer = await held(hub, cache, 10 * KIB)
    blob_path(cache, layer.digest).write_bytes(b"?" * layer.size)

    replies = [await cache.get_blob(REPOSITORY, layer.digest) for _ in range(2)]

    assert [(reply.status, reply.body) for reply in replies] == [(200, layer.content)] * 2
    assert aside(cache) == {name_of(layer): b"?" * layer.size}
    assert await failures(cache) == {"read": 1}
    assert hub.cdn_count(layer.digest) == 1


async def test_a_bad_manifest_costs_the_one_pull_that_brings_it_again(hub: FakeHub, cache: CacheRig) -> None:
    image = hub.add_image(REPOSITORY, "latest")
    await cache.get_manifest(REPOSITORY, "latest")
    await cache.restart()
    blob_path(cache, image.digest).write_bytes(b'{"schemaVersion": 2}')
    hub.reset_counts()

    replies = [await cache.get_manifest(REPOSITORY, "latest") for _ in range(3)]

    assert [(reply.status, reply.body) for reply in replies] == [(200, image.body)] * 3
    assert hub.count("GET", "manifest") == 1
    assert await failures(cache) == {"read": 1}
    assert await counted(cache) == (1, len(image.body))


@pytest.mark.parametrize("size", [10 * KIB, MIB], ids=["small", "large"])
async def test_a_blob_without_its_file_is_counted_once_and_fetched_again(
    hub: FakeHub, cache: CacheRig, size: int
) -> None:
    layer = await held(hub, cache, size)
    blob_path(cache, layer.digest).unlink()

    head = await cache.head_blob(REPOSITORY, layer.digest)
    lost = await counted(cache)
    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (head.status, head.headers["Content-Length"]) == (200, str(size))
    assert lost == (0, 0)
    assert (reply.status, reply.body) == (200, layer.content)
    assert await failures(cache) == {"missing": 1}
    assert await counted(cache) == (1, size)


async def test_a_manifest_without_its_file_is_counted_and_fetched_again(hub: FakeHub, cache: CacheRig) -> None:
    image = hub.add_image(REPOSITORY, "latest")
    await cache.get_manifest(REPOSITORY, "latest")
    await cache.restart()
    blob_path(cache, image.digest).unlink()

    reply = await cache.get_manifest(REPOSITORY, "latest")

    assert (reply.status, reply.body) == (200, image.body)
    assert await failures(cache) == {"missing": 1}


async def test_what_was_never_stored_is_no_failure(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub)
    await cache.head_blob(REPOSITORY, layer.digest)
    await cache.get_blob(REPOSITORY, layer.digest)

    assert await failures(cache) == {}


async def test_a_hundred_clients_of_one_bad_blob_get_the_right_bytes_from_one_fetch(
    hub: FakeHub, cache: CacheRig
) -> None:
    layer = await held(hub, cache)
    os.truncate(blob_path(cache, layer.digest), 1000)

    pulls = (cache.get_blob(REPOSITORY, layer.digest) for _ in range(100))
    replies: list[Reply] = await asyncio.gather(*pulls)

    assert {(reply.status, reply.body) for reply in replies} == {(200, layer.content)}
    assert hub.cdn_count(layer.digest) == 1
    assert await failures(cache) == {"opened": 1}


async def test_a_hundred_clients_of_one_missing_blob_find_out_once(hub: FakeHub, cache: CacheRig) -> None:
    layer = await held(hub, cache)
    blob_path(cache, layer.digest).unlink()

    pulls = (cache.get_blob(REPOSITORY, layer.digest) for _ in range(100))
    replies: list[Reply] = await asyncio.gather(*pulls)

    assert {(reply.status, reply.body) for reply in replies} == {(200, layer.content)}
    assert await failures(cache) == {"missing": 1}


# A disk that does not give the bytes back


def unreadable(monkeypatch: pytest.MonkeyPatch, call: str, path: Path) -> None:
    """Reading this one file fails as it does on a bad sector."""
    real, number = getattr(os, call), path.stat().st_ino

    def failing(target: Any, *arguments: Any) -> Any:
        if (isinstance(target, int) or os.path.exists(target)) and os.stat(target).st_ino == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(target, *arguments)

    monkeypatch.setattr(os, call, failing)


async def test_a_blob_that_cannot_be_opened_any_more_is_fetched_again(
    hub: FakeHub, cache: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = await held(hub, cache)
    unreadable(monkeypatch, "open", blob_path(cache, layer.digest))

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    assert await failures(cache) == {"read": 1}
    assert len(aside(cache)) == 1


async def test_a_blob_that_cannot_be_read_any_more_breaks_one_pull_and_is_fetched_again_by_the_next(
    hub: FakeHub, cache: CacheRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    layer = await held(hub, cache)
    unreadable(monkeypatch, "preadv", blob_path(cache, layer.digest))

    received = await read_until_broken(cache, layer.path)
    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert received == b""
    assert "Traceback" not in caplog.text
    assert (reply.status, reply.body) == (200, layer.content)
    assert await failures(cache) == {"read": 1}
    assert aside(cache) == {name_of(layer): layer.content}
    await nothing_left_open(cache)


async def test_a_bad_file_that_can_neither_be_moved_nor_removed_is_not_used_all_the_same(
    hub: FakeHub, cache: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = await held(hub, cache)
    path = blob_path(cache, layer.digest)
    os.truncate(path, 1000)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(BadFiles, "_move", refuse)

    replies = [await cache.get_blob(REPOSITORY, layer.digest) for _ in range(2)]

    assert [(reply.status, reply.body) for reply in replies] == [(200, layer.content)] * 2
    assert await failures(cache) == {"opened": 1}
    await stored(cache, layer.digest)
    assert path.read_bytes() == layer.content


# What is set aside


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[Blobs]:
    index = Index(tmp_path / "index.sqlite", SystemClock())
    index.open(asyncio.get_running_loop())
    with ThreadPoolExecutor(1) as executor:
        made = Blobs(tmp_path, 0, executor, Integrity(index, Metrics(version="1")))
        made.prepare(alone=True)
        yield made
    index.close()


async def put(blobs: Blobs, content: bytes) -> Digest:
    digest = Digest.of(content)
    await blobs.put(digest, content)
    return digest


def kept(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "bad").iterdir())


async def test_what_goes_bad_again_is_kept_beside_what_was(blobs: Blobs, tmp_path: Path) -> None:
    for _ in range(3):
        digest = await put(blobs, b"content")
        await blobs.set_aside(digest, None, "read")

    assert kept(tmp_path) == [f"sha256-{digest.hex}", f"sha256-{digest.hex}-1", f"sha256-{digest.hex}-2"]


async def test_the_newest_sixteen_are_kept(blobs: Blobs, tmp_path: Path) -> None:
    digests = [await put(blobs, str(number).encode()) for number in range(20)]
    for digest in digests:
        os.utime(blobs.path(digest), (1, 1))  # When it was written says nothing of when it was found.
        await blobs.set_aside(digest, None, "read")

    assert kept(tmp_path) == sorted(f"sha256-{digest.hex}" for digest in digests[-16:])


async def test_no_more_bytes_are_kept_than_may_be(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.store.bad_files.MOST_BYTES", 2500)
    digests = [await put(blobs, bytes([number]) * 1000) for number in range(5)]
    for digest in digests:
        await blobs.set_aside(digest, None, "read")
    large = await put(blobs, b"?" * 3000)

    assert kept(tmp_path) == sorted(f"sha256-{digest.hex}" for digest in digests[-2:])
    await blobs.set_aside(large, None, "read")
    assert kept(tmp_path) == []


async def test_what_was_stored_in_the_place_of_a_bad_file_is_not_set_aside(blobs: Blobs, tmp_path: Path) -> None:
    digest = await put(blobs, b"content")
    bad = blobs.path(digest).stat()
    blobs.path(digest).unlink()
    await put(blobs, b"content")

    await blobs.set_aside(digest, bad, "read")

    assert blobs.path(digest).read_bytes() == b"content"
    assert not (tmp_path / "bad").exists()


async def test_what_is_being_removed_is_not_missing(blobs: Blobs) -> None:
    digest = await put(blobs, b"content")
    stored = await blobs.open(digest)
    assert stored is not None
    stored.close()

    with blobs.leaving([digest]):
        assert await blobs.discard([digest]) == [digest]
        assert await blobs.open(digest) is None
        assert blobs._integrity.size(digest) == 7, "the row goes with what removes it"
    assert await blobs.open(digest) is None
    assert blobs._integrity.size(digest) is None


# What a power failure can undo


def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and renamed from now on, in order."""
    done: list[str] = []
    real_fsync = os.fsync

    def fsync(fd: int) -> None:
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{fd}')).name[:4]}")
        real_fsync(fd)

    def noting(name: str, real: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def rename(path: Path, target: Path) -> Path:
            done.append(name)
            return real(path, target)

        return rename

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", noting("name", Path.replace))
    monkeypatch.setattr(Path, "rename", noting("set aside", Path.rename))
    return done


async def test_content_is_on_disk_before_it_has_its_name(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    done = synced(monkeypatch)
    await put(blobs, b"content")

    assert done == ["sync put-", "name"]


async def test_a_bad_file_does_not_come_back_under_its_name(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = await put(blobs, b"content")
    done = synced(monkeypatch)
    await blobs.set_aside(digest, None, "read")

    assert done == ["set aside", f"sync {digest.hex[:2]}"]
