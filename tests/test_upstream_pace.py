"""A transfer that only drips is broken off and resumed; a slow link is not one that drips."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.oci.errors import Unavailable
from proxy.upstream.pace import FLOOR_BYTES_PER_SECOND, Pace
from tests.blob_rig import KIB, REPOSITORY, add_layer, no_fills, ranges_asked, small_pauses
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub, spoilt
from tests.fallback_rig import APP, both, mirrored

DRIP = spoilt.drip(40, 0.1)
SLOW_LINK = spoilt.drip(2 * KIB, 0.1)


@pytest.fixture(autouse=True)
def asks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pauses(monkeypatch)


@pytest.fixture(params=["thread", "loop", "chunks"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How bodies are received: in a thread from the socket, on the event loop, or there in chunks."""
    monkeypatch.setattr("proxy.store.fills.receiving.LARGE_BYTES", 1 if request.param == "thread" else 2**40)
    return str(request.param)


@pytest.fixture
async def cache(hub: FakeHub, tmp_path: Path) -> AsyncIterator[CacheRig]:
    async with CacheRig(hub.url, tmp_path / "cache", idle_timeout=0.4) as running:
        yield running


async def test_a_transfer_that_drips_is_resumed_from_where_it_is_through_a_fresh_redirect(
    hub: FakeHub, cache: CacheRig, way: str
) -> None:
    layer = add_layer(hub, 256 * KIB)
    if way == "chunks":
        hub.no_content_length(layer.digest)
    rule = hub.change(layer.digest, DRIP, times=2, content_only=True)  # The registry's redirect carries no content.

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    first, second, *_ = ranges = ranges_asked(hub, layer.digest)
    assert (rule.used, len(ranges), first) == (2, 3, None)
    assert second is not None and 0 < int(second.removeprefix("bytes=").removesuffix("-")) < 10 * KIB
    assert hub.count("GET", "blob", layer.digest) == 3
    await no_fills(cache)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == ({layer.digest}, {})


async def test_a_healthy_slow_link_is_never_cut(hub: FakeHub, cache: CacheRig, way: str) -> None:
    layer = add_layer(hub, 32 * KIB)
    if way == "chunks":
        hub.no_content_length(layer.digest)
    hub.change(layer.digest, SLOW_LINK, content_only=True)

    reply = await cache.get_blob(REPOSITORY, layer.digest)

    assert (reply.status, reply.body) == (200, layer.content)
    assert ranges_asked(hub, layer.digest) == [None]


async def test_what_drips_from_the_upstream_is_ended_by_its_fallback(hub: FakeHub, tmp_path: Path, way: str) -> None:
    layer = bytes(range(256)) * KIB
    async with FakeHub() as mirror:
        rig = mirrored(hub, mirror, tmp_path / "cache", idle_timeout=0.4)
        async with rig as cache:
            image = both(hub, mirror, layer=layer)
            digest = image.layers[0]
            hub.change(digest, DRIP, content_only=True)

            reply = await cache.get_blob(APP, digest)

            assert (reply.status, reply.body) == (200, layer)
            assert hub.cdn_count(digest) == 1
            assert 0 < mirror.bytes_sent(digest) < len(layer)


def test_what_counts_is_the_average_over_the_window() -> None:
    pace = Pace("hub", 60.0)
    for _ in range(10):
        pace.note(59.0, 0)
        pace.note(1.0, 60 * FLOOR_BYTES_PER_SECOND)  # Just enough, and at the last moment.
    pace.note(59.9, 0)
    with pytest.raises(Unavailable, match="less than 1024 bytes a second"):
        pace.note(0.1, 60 * FLOOR_BYTES_PER_SECOND - 1)


def test_no_time_is_no_slowness() -> None:
    pace = Pace("hub", 60.0)
    for _ in range(10_000):
        pace.note(0.0, 1)
