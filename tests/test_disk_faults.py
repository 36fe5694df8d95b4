"""Our own disk fails: what the client sees, what is left, and that the next pull succeeds."""

from __future__ import annotations

import errno
import os

import pytest

from tests.blob_rig import (
    MIB,
    REPOSITORY,
    Layer,
    add_layer,
    admit,
    assert_next_pull_succeeds,
    path_of,
    small_pauses,
    stored,
)
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub


@pytest.fixture(autouse=True)
def asks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pauses(monkeypatch)


@pytest.fixture
def layer(hub: FakeHub) -> Layer:
    return add_layer(hub)


class FailingDisk:
    """Stands in for one call of the operating system; the `first` one fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str, first: int = 1, number: int = errno.ENOSPC) -> None:
        self.real = getattr(os, call)
        self.first, self.calls, self.number = first, 0, number
        monkeypatch.setattr(os, call, self)

    def __call__(self, *arguments: object) -> object:
        self.calls += 1
        if self.calls == self.first:
            raise OSError(self.number, os.strerror(self.number))
        return self.real(*arguments)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
@pytest.mark.parametrize("chunked", [False, True], ids=["in a thread", "on the loop"])
@pytest.mark.parametrize("first", [1, 2, 3])
async def test_a_write_that_fails_breaks_no_pull_and_leaves_nothing(
    hub: FakeHub, cache: CacheRig, first: int, chunked: bool, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = add_layer(hub, 8 * MIB)
    if chunked:  # Its size is known all the same, from the HEAD.
        await cache.head_blob(REPOSITORY, layer.digest)
        hub.no_content_length(layer.digest)
    disk = FailingDisk(monkeypatch, "pwrite", first, number)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert disk.calls == first, "nothing is written behind a gap"
    assert (reply.status, reply.body) == (200, layer.content)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {})
    assert await cache.metric("pullthrough_fills_failed_total") is None
    assert await cache.metric("pullthrough_not_stored_total", reason="disk") == 1
    await assert_next_pull_succeeds(hub, cache, layer)


async def test_a_partial_that_cannot_be_made_breaks_no_pull(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    await admit(hub, cache, layer)
    folder = cache.directory / "partial" / layer.digest.replace(":", "-")
    folder.mkdir()

    reply = await cache.get_blob(REPOSITORY, layer.digest)
    folder.rmdir()

    assert (reply.status, reply.body) == (200, layer.content)
    assert reply.cache_status == "pullthrough; fwd=miss; detail=disk"
    assert hub.cdn_count() == 1
    await assert_next_pull_succeeds(hub, cache, layer)


async def test_a_commit_that_fails_breaks_no_pull_and_keeps_the_bytes_for_the_next_one(
    hub: FakeHub, cache: CacheRig, layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    FailingDisk(monkeypatch, "fsync")

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {layer.digest: layer.size})
    assert await cache.metric("pullthrough_fills_failed_total", reason="disk") == 1
    await assert_next_pull_succeeds(hub, cache, layer)
    assert hub.bytes_sent(layer.digest) == layer.size, "nothing is fetched twice"


async def test_a_disk_that_cannot_be_read_is_answered_503(hub: FakeHub, cache: CacheRig, layer: Layer) -> None:
    await cache.get_blob(REPOSITORY, layer.digest)
    await stored(cache, layer.digest)
    blob = cache.directory / "blobs" / "sha256" / layer.digest[7:9] / layer.digest[7:]
    blob.rename(blob.with_suffix(".aside"))
    blob.symlink_to(blob.name)  # Opening it fails with ELOOP.

    replies = [await cache.send(method, path_of(REPOSITORY, layer.digest)) for method in ("GET", "HEAD")]
    blob.with_suffix(".aside").replace(blob)

    assert [reply.status for reply in replies] == [503, 503]
    await eventually(lambda: cache.partials_on_disk() == {})
    await assert_next_pull_succeeds(hub, cache, layer)
