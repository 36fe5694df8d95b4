"""Clients that take their answers slowly, or leave in the middle: nothing of theirs is held without bound."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.server.connection import Patience
from proxy.server.connections import Connections
from proxy.server.floor import Floor
from proxy.server.pump import Pump
from tests.blob_rig import MIB, REPOSITORY, add_layer, nothing_left_open, readers
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.leftovers import nothing_left_over
from tests.raw_http import RawClient, raw_client

LARGE_MANIFEST = 6 * MIB
LATEST = f"/v2/{REPOSITORY}/manifests/latest"
SLOW = "pullthrough_connections_refused_total"


def add_manifest(hub: FakeHub, size: int) -> bytes:
    """A manifest of this size and a little."""
    body = json.dumps({"schemaVersion": 2, "annotations": {"filler": "a" * size}}).encode()
    hub.add_manifest(REPOSITORY, body, tag="latest")
    return body


@pytest.fixture
def manifest(hub: FakeHub) -> bytes:
    """One that no socket takes at once."""
    return add_manifest(hub, LARGE_MANIFEST)


@asynccontextmanager
async def impatient(
    hub: FakeHub, directory: Path, monkeypatch: pytest.MonkeyPatch, floor: Floor
) -> AsyncIterator[CacheRig]:
    """A cache that gives clients up by this floor."""
    monkeypatch.setattr("proxy.app.Connections", functools.partial(Connections, floor=floor))
    monkeypatch.setattr("proxy.app.generation.Pump", functools.partial(Pump, floor))
    async with CacheRig(hub.url, directory) as running:
        await running.metrics()  # Over a connection that is kept.
        yield running


async def slow_ended(cache: CacheRig, count: int) -> None:
    """Wait until so many were ended for being slow."""

    async def counted() -> bool:
        return await cache.metric(SLOW, reason="slow_reader") == count

    await eventually(counted, label=f"{count} slow readers were ended")


async def drip(client: RawClient, count: int, *, every: float) -> None:
    """Take so many bytes again and again. Raises IncompleteReadError or ConnectionError at the end."""
    while True:
        await client.read(count)
        await asyncio.sleep(every)


# Slow


async def test_a_client_that_never_reads_a_manifest_is_ended(
    hub: FakeHub, manifest: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with impatient(hub, tmp_path, monkeypatch, Floor(bytes=30_000, seconds=0.2)) as cache:
        await cache.get_manifest(REPOSITORY, "latest")
        async with nothing_left_over(), raw_client(cache.url, receive_buffer=4096) as client:
            client.ask("GET", LATEST)
            await slow_ended(cache, 1)
            assert len(await client.rest()) < LARGE_MANIFEST


async def test_a_client_that_asks_and_asks_and_reads_nothing_is_ended(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_manifest(hub, 60_000)
    async with impatient(hub, tmp_path, monkeypatch, Floor(bytes=30_000, seconds=0.2)) as cache:
        await cache.get_manifest(REPOSITORY, "latest")
        async with raw_client(cache.url, receive_buffer=4096) as client:
            for _ in range(1000):
                client.ask("GET", LATEST)
            await slow_ended(cache, 1)


async def test_a_client_that_ended_its_side_and_reads_nothing_is_ended(
    hub: FakeHub, manifest: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with impatient(hub, tmp_path, monkeypatch, Floor(bytes=30_000, seconds=0.2)) as cache:
        await cache.get_manifest(REPOSITORY, "latest")
        async with nothing_left_over(), raw_client(cache.url, receive_buffer=4096) as client:
            client.ask("GET", LATEST)
            client.half_close()
            await slow_ended(cache, 1)


@pytest.mark.parametrize("what", ["manifest", "blob"])
async def test_a_client_that_takes_a_few_bytes_now_and_then_is_ended(
    hub: FakeHub, manifest: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    layer = add_layer(hub, 8 * MIB)
    async with impatient(hub, tmp_path, monkeypatch, Floor(bytes=20_000, seconds=0.3)) as cache:
        await cache.get_manifest(REPOSITORY, "latest")
        await cache.get_blob(REPOSITORY, layer.digest)
        async with nothing_left_over():
            async with raw_client(cache.url, receive_buffer=4096) as client:
                client.ask("GET", LATEST if what == "manifest" else layer.path)
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    async with asyncio.timeout(10):
                        await drip(client, 100, every=0.02)  # 1.5 KB where 20 are asked for.
            await nothing_left_open(cache)
        await slow_ended(cache, 1)


async def test_a_slow_client_holds_no_place_in_a_running_fill(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = add_layer(hub, 16 * MIB)
    async with impatient(hub, tmp_path, monkeypatch, Floor(bytes=30_000, seconds=0.2)) as cache:
        hub.hold("cdn", 12 * MIB)
        async with raw_client(cache.url, receive_buffer=4096) as client:
            client.ask("GET", layer.path)
            await readers(cache, layer.digest, 1)
            await readers(cache, layer.digest, 0)
        hub.release()
        assert (await cache.get_blob(REPOSITORY, layer.digest)).body == layer.content


@pytest.mark.parametrize("what", ["manifest", "blob"])
async def test_a_slow_client_that_takes_enough_gets_all(
    hub: FakeHub, manifest: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    layer = add_layer(hub, 6 * MIB)
    body = manifest if what == "manifest" else layer.content
    async with impatient(hub, tmp_path, monkeypatch, Floor(bytes=20_000, seconds=0.2)) as cache:
        await cache.get_manifest(REPOSITORY, "latest")
        await cache.get_blob(REPOSITORY, layer.digest)
        async with raw_client(cache.url, receive_buffer=65536) as client:
            client.ask("GET", LATEST if what == "manifest" else layer.path)
            status, _ = await client.head()
            received = b""
            for _ in range(15):  # 1.5 s in all, of which our end of the connection writes little.
                received += await client.read(100_000)
                await asyncio.sleep(0.1)
            received += await client.read(len(body) - len(received))

        assert (status, received) == (200, body)
        assert await cache.metric(SLOW, reason="slow_reader") is None


async def test_what_goes_by_the_file_never_overtakes_what_waits_to_be_written(cache: CacheRig, hub: FakeHub) -> None:
    """Manifests are written by the transport, which keeps what the socket does not take; blobs go to the socket."""
    manifest, layer = add_manifest(hub, 60_000), add_layer(hub, 100_000)
    await cache.get_manifest(REPOSITORY, "latest")
    await cache.get_blob(REPOSITORY, layer.digest)
    async with raw_client(cache.url, receive_buffer=4096) as client:
        for _ in range(60):
            client.ask("GET", LATEST)
            client.ask("GET", layer.path)
        await asyncio.sleep(0.3)  # Until nothing more goes into the sockets.
        replies = [await client.reply() for _ in range(120)]

    assert [reply.body for reply in replies] == [manifest, layer.content] * 60


# Half closed


async def test_a_client_that_ends_its_side_after_asking_is_answered(
    cache: CacheRig, hub: FakeHub, manifest: bytes
) -> None:
    layer = add_layer(hub, 3 * MIB)
    async with raw_client(cache.url) as client:
        client.ask("GET", "/v2/")
        client.ask("GET", layer.path)
        client.ask("GET", LATEST)
        client.half_close()

        replies = [await client.reply() for _ in range(3)]
        assert await client.rest() == b""

    assert [reply.body for reply in replies] == [b"{}", layer.content, manifest]


async def test_once_it_is_answered_a_client_that_ended_its_side_is_not_kept_waiting(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.server.connections.Patience", functools.partial(Patience, half_closed=60.0))
    async with CacheRig(hub.url, tmp_path) as cache, raw_client(cache.url) as client, asyncio.timeout(10):
        client.ask("GET", "/v2/")
        client.half_close()
        assert (await client.reply()).status == 200
        assert await client.rest() == b""


async def test_a_client_that_ended_its_side_may_take_its_time(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.server.connections.Patience", functools.partial(Patience, half_closed=0.1))
    layer = add_layer(hub, 6 * MIB)
    async with CacheRig(hub.url, tmp_path) as cache:
        await cache.get_blob(REPOSITORY, layer.digest)
        async with raw_client(cache.url, receive_buffer=65536) as client:
            client.ask("GET", layer.path)
            client.half_close()
            await client.head()
            received = b""
            for _ in range(10):
                received += await client.read(50_000)
                await asyncio.sleep(0.05)
            received += await client.read(layer.size - len(received))

    assert received == layer.content


async def test_a_client_that_ended_its_side_is_not_waited_for_when_there_is_no_answer(
    cache: CacheRig, hub: FakeHub
) -> None:
    hub.add_image(REPOSITORY, "latest")
    hub.hang("manifest")
    async with raw_client(cache.url) as client:
        client.ask("GET", LATEST)
        await hub.wait_held("manifest")
        client.half_close()
        async with asyncio.timeout(5):
            assert await client.rest() == b""

    assert await cache.metric("pullthrough_requests_total", kind="manifest", code="499") == 1
    hub.release()


@pytest.mark.parametrize("begun", [b"", b"GET /v2/ HT", b"GET /v2/ HTTP/1.1\r\nHost: x\r\n"])
async def test_a_client_that_ends_its_side_without_a_whole_request_is_ended(cache: CacheRig, begun: bytes) -> None:
    async with raw_client(cache.url) as client:
        client.send(begun)
        client.half_close()
        async with asyncio.timeout(5):
            assert await client.rest() == b""


async def test_a_client_that_ends_its_side_within_a_body_is_answered(cache: CacheRig) -> None:
    async with raw_client(cache.url) as client:
        client.ask("GET", "/v2/", "Content-Length: 100")
        client.send(b"ten bytes.")
        client.half_close()
        async with asyncio.timeout(10):
            assert (await client.reply()).status == 200
            assert await client.rest() == b""


# Gone

LEAVING: dict[str, Callable[[RawClient], None]] = {
    "an end": RawClient.leave,
    "a reset": RawClient.reset,
    "half an end": RawClient.half_close,
}


@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING)
async def test_whenever_a_client_leaves_nothing_of_it_is_left(
    cache: CacheRig, hub: FakeHub, manifest: bytes, leave: Callable[[RawClient], None]
) -> None:
    layer = add_layer(hub, 8 * MIB)
    small = add_layer(hub, 1000, seed=1)
    request = f"GET {layer.path} HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n".encode()
    cuts = [request[:count] for count in (0, 1, 10, len(request) - 1)]
    whole = [request.replace(layer.path.encode(), path.encode()) for path in (layer.path, small.path, LATEST, "/")]

    async def come_and_go(begun: bytes, taken: int) -> None:
        async with raw_client(cache.url, receive_buffer=4096) as client:
            client.send(begun)
            await client.read(taken)
            leave(client)

    async def all_ways() -> None:
        for begun in (*cuts, *whole, whole[0] + cuts[2], whole[0] * 3):
            await come_and_go(begun, 0)
        for begun in whole[:3]:
            await come_and_go(begun, 100)
        await come_and_go(whole[0], 100_000)

    for digest in (layer.digest, small.digest):
        await cache.get_blob(REPOSITORY, digest)
    await cache.get_manifest(REPOSITORY, "latest")
    await cache.status()  # Over a connection that is kept.
    await all_ways()
    async with nothing_left_over():
        for _ in range(3):
            await all_ways()
    await nothing_left_open(cache)
    await eventually(lambda: len(cache.app._connections) <= 1)


async def test_clients_that_leave_a_running_fill_give_their_places_back(cache: CacheRig, hub: FakeHub) -> None:
    layer = add_layer(hub, 16 * MIB)
    hub.hold("cdn", 4 * MIB)
    for leave in (RawClient.leave, RawClient.reset, RawClient.half_close):
        async with raw_client(cache.url) as client:
            client.ask("GET", layer.path)
            await client.head()
            await client.read(1000)
            await readers(cache, layer.digest, 1)
            leave(client)
            if leave is RawClient.half_close:
                break
            await readers(cache, layer.digest, 0)
    hub.release()  # Half an end looks like a whole one, until something is sent.
    assert (await cache.get_blob(REPOSITORY, layer.digest)).body == layer.content
    await nothing_left_open(cache)
