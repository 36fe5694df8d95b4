"""Several processes of one cache, real ones: what clients get of each, and when one of them is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.blob_rig import KIB, MIB, add_layer, ranges_asked
from tests.eventually import eventually
from tests.fake_hub import FakeHub, at
from tests.raw_http import RawClient
from tests.workers_rig import Ship, connections_of, open_files, ship

REPOSITORY = "library/app"
MANIFEST = f"/v2/{REPOSITORY}/manifests/latest"
LARGE = 24 * MIB
"""Larger than what sockets buffer."""


@pytest.fixture
async def cache(hub: FakeHub, tmp_path: Path) -> AsyncIterator[Ship]:
    """A host and one server."""
    hub.rate_limit = None
    async with ship(tmp_path, hub) as running:
        yield running


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as running:
        yield running


async def partial_has(folder: Path, digest: str, size: int) -> None:
    """Wait until so much of a fill is on disk."""
    path = folder / "cache" / "partial" / digest.replace(":", "-")
    await eventually(lambda: path.exists() and path.stat().st_size == size, label=f"{size} bytes of {digest}")


async def asked(hub: FakeHub, times: int) -> None:
    """Wait until so many hosts have asked upstream for a blob, and for something else that it does not answer."""
    await eventually(lambda: hub.cdn_count() == times == hub.count("HEAD", "manifest", repository="library/other"))


async def begun(client: RawClient, path: str, count: int) -> bytes:
    """Ask for a body and take so many bytes of it."""
    client.ask("GET", path)
    assert (await client.head())[0] == 200
    return await client.read(count)


async def test_clients_of_both_processes_share_one_fetch(hub: FakeHub, cache: Ship) -> None:
    layer = add_layer(hub, 4 * MIB)
    image = hub.add_image(REPOSITORY, "latest", [layer.digest])
    pids = [cache.host, cache.server] * 2

    hub.hang(at("manifest", reference=image.digest), times=1)
    manifests = [asyncio.ensure_future(cache.get(pid, MANIFEST)) for pid in pids]
    await hub.wait_held()
    hub.release()
    assert [(await reply).body for reply in manifests] == [image.body] * 4

    hub.hold(layer.digest, MIB, times=1)
    blobs = [asyncio.ensure_future(cache.get(pid, layer.path)) for pid in pids]
    await hub.wait_held(layer.digest)
    hub.release()
    assert [(await reply).body for reply in blobs] == [layer.content] * 4
    assert (hub.counted_pulls, ranges_asked(hub, layer.digest)) == (1, [None])
    assert hub.violations == []


async def test_a_host_that_dies_in_mid_fill_breaks_its_own_connections_only(
    hub: FakeHub, cache: Ship, tmp_path: Path, stack: AsyncExitStack
) -> None:
    layer = add_layer(hub, 4 * MIB)
    gate = hub.hold(layer.digest, 2 * MIB, times=1)
    host = cache.host
    at_host, at_server, in_part = [
        await stack.enter_async_context(cache.client(pid)) for pid in (host, cache.server, cache.server)
    ]
    in_part.ask("GET", layer.path, f"Range: bytes={3 * MIB}-{3 * MIB + 9}")
    begins = [await begun(client, layer.path, MIB) for client in (at_host, at_server)]
    await partial_has(tmp_path, layer.digest, 2 * MIB)

    await cache.killed(host)
    gate.cut()

    assert begins == [layer.content[:MIB]] * 2
    assert MIB + len(await at_host.rest()) <= 2 * MIB
    assert await at_server.read(3 * MIB) == layer.content[MIB:]
    reply = await in_part.reply()
    assert (reply.status, reply.body) == (206, layer.content[3 * MIB : 3 * MIB + 10])
    assert ranges_asked(hub, layer.digest) == [None, f"bytes={2 * MIB}-"]
    assert hub.bytes_sent(layer.digest) == layer.size
    assert (await cache.get(cache.server, layer.path)).body == layer.content
    assert hub.violations == []


async def test_a_host_that_dies_before_its_answer_is_followed_by_one_that_gives_it(hub: FakeHub, cache: Ship) -> None:
    image = hub.add_image(REPOSITORY, "latest")
    hub.hang(at("manifest", reference=image.digest), times=1)
    host = cache.host
    answering = asyncio.ensure_future(cache.get(cache.server, MANIFEST))
    await hub.wait_held()

    await cache.killed(host)

    assert (await answering).body == image.body


async def test_what_is_stored_is_sent_to_its_end_without_a_host(
    hub: FakeHub, cache: Ship, stack: AsyncExitStack
) -> None:
    layer = add_layer(hub, LARGE)
    assert (await cache.get(cache.server, layer.path)).body == layer.content
    client = await stack.enter_async_context(cache.client(cache.server, receive_buffer=64 * KIB))
    begin = await begun(client, layer.path, MIB)

    await cache.killed(cache.host)

    assert begin + await client.read(LARGE - MIB) == layer.content
    assert hub.bytes_sent(layer.digest) == LARGE


async def test_what_passes_by_the_disk_goes_on_by_the_next_host(
    hub: FakeHub, tmp_path: Path, stack: AsyncExitStack
) -> None:
    layer = add_layer(hub, 4 * MIB)
    gate = hub.hold(layer.digest, 2 * MIB, times=1)
    async with ship(tmp_path, hub, environ={"PULLTHROUGH_CACHE__MAX_SIZE": "1"}) as cache:
        client = await stack.enter_async_context(cache.client(cache.server))
        begin = await begun(client, layer.path, MIB)

        await cache.killed(cache.host)
        gate.cut()

        assert begin + await client.read(3 * MIB) == layer.content
        assert set(ranges_asked(hub, layer.digest)) == {None}  # All of it is hashed anew.


async def test_a_request_that_three_hosts_die_of_is_given_up(hub: FakeHub, cache: Ship, stack: AsyncExitStack) -> None:
    """One that was not answered gets an error, one that was begun is broken off; others are answered again."""
    layer = add_layer(hub, 4 * MIB)
    hub.add_image("library/other", "latest")
    hub.hang(at("manifest", repository="library/other"))
    hub.hold(layer.digest, MIB)
    unanswered, unfinished, other = [await stack.enter_async_context(cache.client(cache.server)) for _ in range(3)]
    unanswered.ask("GET", "/v2/library/other/manifests/latest")
    received = await begun(unfinished, layer.path, MIB)
    for deaths in range(1, 4):
        await asked(hub, deaths)
        await cache.killed(cache.host)
        await cache.complete()

    reply = await unanswered.reply()
    received += await unfinished.rest()

    assert (reply.status, reply.code, reply.headers["Retry-After"]) == (503, "UNAVAILABLE", "5")
    assert layer.content.startswith(received) and MIB <= len(received) <= 3 * MIB
    other.ask("GET", "/v2/")
    assert (await other.reply()).status == 200


async def test_a_server_that_dies_breaks_its_own_connections_only(
    hub: FakeHub, cache: Ship, stack: AsyncExitStack
) -> None:
    layer = add_layer(hub, LARGE)
    host, server = cache.host, cache.server
    assert (await cache.get(host, layer.path)).body == layer.content
    clients = [
        await stack.enter_async_context(cache.client(pid, receive_buffer=64 * KIB)) for pid in (host, server, server)
    ]
    begins = [await begun(client, layer.path, MIB) for client in clients]
    assert await cache.metric("pullthrough_connections") == 3

    await cache.killed(server)

    assert MIB + len(await clients[1].rest()) < LARGE
    assert MIB + len(await clients[2].rest()) < LARGE
    assert begins[0] + await clients[0].read(LARGE - MIB) == layer.content
    assert await cache.metric("pullthrough_connections") == 1
    await cache.complete()
    assert cache.server != server
    assert (await cache.get(cache.server, layer.path)).body == layer.content


async def test_nothing_stays_open_of_what_was_answered(hub: FakeHub, cache: Ship) -> None:
    layer, small = add_layer(hub, MIB), add_layer(hub, 9, seed=1)
    hub.add_image(REPOSITORY, "latest", [layer.digest])
    host, server = cache.host, cache.server
    paths = ["/v2/", MANIFEST, layer.path, small.path, f"/v2/{REPOSITORY}/manifests/missing"]

    async def ask(times: int) -> None:
        async with cache.client(server) as client:
            for _ in range(times):
                for path in paths:
                    client.ask("GET", path)
                    await client.reply()

    def held(pid: int) -> int:
        """Connections with upstreams come and go."""
        return len(open_files(pid)) - len(connections_of(pid))

    await ask(2)
    await eventually(lambda: not connections_of(server), label="the client has left")
    before = held(host), held(server)
    await ask(200)
    await eventually(lambda: (held(host), held(server)) == before, label=f"{before} descriptors are open")
