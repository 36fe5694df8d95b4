"""What is on disk: what a start makes of it, how it is healed, and what of it is in memory."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from proxy.app import App, StartError
from proxy.clock import SystemClock
from proxy.config import CacheOptions
from proxy.metrics import Metrics
from proxy.oci.names import Digest
from proxy.store.blobs import Blobs
from proxy.store.index import Index
from proxy.store.integrity import Integrity
from tests.blob_rig import (
    KIB,
    MIB,
    REPOSITORY,
    Layer,
    add_layer,
    assert_never_whole,
    no_fills,
    nothing_left_open,
    path_of,
    ranges_asked,
    read_until_broken,
    stored,
)
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub

HALF = 512 * KIB


@pytest.fixture
def layer(hub: FakeHub) -> Layer:
    return add_layer(hub)


async def restart_with_partial(cache: CacheRig, layer: Layer, content: bytes) -> None:
    """As if an earlier run had been killed with these bytes in its partial file."""
    await cache.stop()
    (cache.directory / "partial" / layer.digest.replace(":", "-")).write_bytes(content)
    await cache.start()


def blob_path(cache: CacheRig, digest: str) -> Path:
    algorithm, _, encoded = digest.partition(":")
    return cache.directory / "blobs" / algorithm / encoded[:2] / encoded


# What an earlier run left


@pytest.mark.parametrize("kept", [1, HALF, MIB - 1])
async def test_a_partial_of_an_earlier_run_is_resumed(hub: FakeHub, cache: CacheRig, layer: Layer, kept: int) -> None:
    await restart_with_partial(cache, layer, layer.content[:kept])

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    assert ranges_asked(hub, layer.digest) == [f"bytes={kept}-"]
    assert hub.bytes_sent(layer.digest) == layer.size - kept
    await no_fills(cache)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == ({layer.digest}, {})


async def test_what_a_partial_has_is_served_before_upstream_sends_more(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    await restart_with_partial(cache, layer, layer.content[:HALF])
    hub.hold(layer.digest, after_bytes=0)

    async with cache.open(layer.path) as response:
        assert await response.content.readexactly(HALF) == layer.content[:HALF]
        hub.release()
        assert await response.read() == layer.content[HALF:]


async def test_a_whole_partial_is_stored_without_fetching_a_byte(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    await restart_with_partial(cache, layer, layer.content)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    assert (hub.count("GET", "blob"), hub.count("HEAD", "blob")) == (0, 1)
    assert hub.blob_bytes_sent == 0
    await no_fills(cache)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == ({layer.digest}, {})


async def test_a_partial_with_wrong_bytes_is_never_served_whole_and_gone_for_the_next_pull(
    hub: FakeHub, cache: CacheRig, layer: Layer
) -> None:
    await restart_with_partial(cache, layer, b"?" * HALF)

    received = await read_until_broken(cache, layer.path)
    left = cache.blobs_on_disk(), cache.partials_on_disk()
    second = await cache.get_blob(REPOSITORY, layer.digest)

    assert_never_whole(received, layer)
    assert left == (set(), {})
    assert (second.status, second.body) == (200, layer.content)


@pytest.mark.parametrize("length", [MIB, MIB + 1, 2 * MIB], ids=["as long", "longer", "much longer"])
async def test_a_partial_that_cannot_be_a_beginning_of_the_blob_is_begun_anew(
    hub: FakeHub, cache: CacheRig, layer: Layer, length: int
) -> None:
    await restart_with_partial(cache, layer, b"?" * length)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    await no_fills(cache)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == ({layer.digest}, {})


async def test_partials_of_an_earlier_boot_are_removed(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    (cache.directory / "partial" / "boot_id").write_text("another boot")
    await restart_with_partial(cache, layer, layer.content[:HALF])

    assert cache.partials_on_disk() == {}
    await restart_with_partial(cache, layer, layer.content[:HALF])
    assert cache.partials_on_disk() == {layer.digest: HALF}


async def test_files_of_puts_that_were_killed_are_removed(cache: CacheRig) -> None:
    await cache.stop()
    leftover = cache.directory / "partial" / "put-abc"
    leftover.write_bytes(b"half a manifest")

    await cache.start()

    assert not leftover.exists()


async def test_a_folder_that_cannot_be_made_is_said_by_name(tmp_path: Path, cache: CacheRig) -> None:
    (tmp_path / "file").write_text("")
    cache.options = {"cache": CacheOptions(directory=tmp_path / "file" / "below")}

    with pytest.raises(StartError, match=r"cannot use the cache folder .*file/below.*\[cache\] directory"):
        await App(cache.config()).start()


# What goes bad later


@pytest.mark.parametrize("size", [10 * KIB, MIB], ids=["small", "large"])
@pytest.mark.parametrize("length", [0, 5 * KIB, 2 * MIB], ids=["empty", "shorter", "longer"])
async def test_a_blob_that_has_another_length_than_it_had_is_fetched_anew(
    hub: FakeHub, cache: CacheRig, size: int, length: int
) -> None:
    layer = add_layer(hub, size, seed=3)
    await cache.get_blob(REPOSITORY, layer.digest)
    await stored(cache, layer.digest)
    os.truncate(blob_path(cache, layer.digest), length)
    await cache.restart()

    replies = [await cache.get_blob(REPOSITORY, layer.digest) for _ in range(2)]

    assert [(reply.status, reply.body) for reply in replies] == [(200, layer.content)] * 2
    assert hub.cdn_count(layer.digest) == 2
    await nothing_left_open(cache)


async def test_a_small_blob_whose_bytes_changed_on_disk_is_fetched_anew(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub, 10 * KIB, seed=3)
    await cache.get_blob(REPOSITORY, layer.digest)
    await stored(cache, layer.digest)
    blob_path(cache, layer.digest).write_bytes(b"?" * layer.size)
    await cache.restart()

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    await no_fills(cache)
    assert blob_path(cache, layer.digest).read_bytes() == layer.content


async def test_a_manifest_whose_bytes_changed_on_disk_is_fetched_anew(hub: FakeHub, cache: CacheRig) -> None:
    image = hub.add_image(REPOSITORY, "latest")
    await cache.get_manifest(REPOSITORY, image.digest)
    blob_path(cache, image.digest).write_bytes(b"{}")
    await cache.restart()

    reply = await cache.get_manifest(REPOSITORY, image.digest)

    assert (reply.status, reply.body) == (200, image.body)


async def test_a_blob_that_was_removed_by_hand_is_fetched_anew(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    await cache.get_blob(REPOSITORY, layer.digest)
    await stored(cache, layer.digest)
    blob_path(cache, layer.digest).unlink()

    head = await cache.head_blob(REPOSITORY, layer.digest)
    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (head.status, head.headers["Content-Length"]) == (200, str(layer.size))
    assert (reply.status, reply.body) == (200, layer.content)


async def test_a_blob_that_is_removed_while_it_is_read_is_read_to_its_end(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub, 24 * MIB)
    await cache.get_blob(REPOSITORY, layer.digest)
    await stored(cache, layer.digest)

    async with cache.open(layer.path) as response:
        first = await response.content.readexactly(1)
        blob_path(cache, layer.digest).unlink()
        rest = await response.read()

    assert first + rest == layer.content


@pytest.mark.parametrize("size", [10 * KIB, 9 * MIB], ids=["small", "large"])
async def test_a_layer_asked_for_as_a_manifest_is_none(hub: FakeHub, cache: CacheRig, size: int) -> None:
    layer = add_layer(hub, size)
    image = hub.add_image(REPOSITORY, None, [layer.digest])
    await cache.get_manifest(REPOSITORY, image.digest)
    await cache.get_blob(REPOSITORY, layer.digest)
    await stored(cache, layer.digest)

    reply = await cache.get_manifest(REPOSITORY, layer.digest)

    assert reply.status == 404
    assert cache.blobs_on_disk() == {image.digest, layer.digest}


# What is in memory


async def test_a_small_blob_is_answered_from_memory(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub, 10 * KIB)
    await cache.get_blob(REPOSITORY, layer.digest)
    await no_fills(cache)
    await cache.get_blob(REPOSITORY, layer.digest)
    blob_path(cache, layer.digest).unlink()

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    assert (await cache.status())["cache"]["memory_bytes"] == layer.size


async def test_memory_is_bounded_by_bytes(hub: FakeHub, cache: CacheRig) -> None:
    cache.options = {"cache": CacheOptions(directory=cache.directory, memory=100 * KIB)}
    await cache.restart()
    layers = [add_layer(hub, 30 * KIB, seed=seed) for seed in range(5)]

    for layer in layers * 2:
        assert (await cache.get_blob(REPOSITORY, layer.digest)).body == layer.content
        await no_fills(cache)

    assert (await cache.status())["cache"]["memory_bytes"] == 90 * KIB


# Descriptors


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as running:
        yield running


async def test_a_file_opened_for_somebody_who_has_left_is_closed(
    tmp_path: Path, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index(tmp_path / "index.sqlite", SystemClock())
    index.open(asyncio.get_running_loop())
    blobs = Blobs(tmp_path, 0, executor, Integrity(index, Metrics(version="1")))
    blobs.prepare(alone=True)
    content = b"content"
    digest = Digest.of(content)
    await blobs.put(digest, content)
    reached, go_on, opened, closed = threading.Event(), threading.Event(), list[int](), list[int]()
    real_open, real_close = os.open, os.close

    def slow_open(*arguments: Any) -> int:
        reached.set()
        go_on.wait()
        opened.append(real_open(*arguments))
        return opened[-1]

    def noted_close(fd: int) -> None:
        closed.append(fd)
        real_close(fd)

    monkeypatch.setattr(os, "open", slow_open)
    monkeypatch.setattr(os, "close", noted_close)

    opening = asyncio.create_task(blobs.open(digest))
    await eventually(reached.is_set)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    go_on.set()

    await eventually(lambda: opened and opened[0] in closed)
    index.close()


async def test_clients_that_leave_at_any_moment_leave_nothing_open(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub, 4 * MIB)
    for turn in range(30):
        pull = asyncio.create_task(cache.send("GET", path_of(REPOSITORY, layer.digest)))
        for _ in range(turn):
            await asyncio.sleep(0)
        pull.cancel()

    await eventually(lambda: cache.blobs_on_disk() == {layer.digest})
    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert reply.body == layer.content
    await nothing_left_open(cache)
