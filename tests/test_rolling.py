"""A new process takes over from an old one while clients pull: no request fails, and no byte is wrong."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from proxy.config import Address, ServerOptions
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub, Image
from tests.ports import free_port
from tests.raw_http import raw_client
from tests.service_rig import LISTEN_HERE, Service, knocking, pulling, service, write_config

BIG = 24_000_000
REPOSITORY = "library/big"
ROLLS = 3


@pytest.fixture
def images(hub: FakeHub) -> list[Image]:
    """Small images, that are pulled quickly."""
    hub.rate_limit = None
    return [
        hub.add_image(
            f"library/image-{number}", "latest", [hub.add_synthetic_blob(size, number) for size in (90_000, 9)]
        )
        for number in range(6)
    ]


@pytest.fixture
def big(hub: FakeHub) -> str:
    """The digest of a blob that is larger than what sockets buffer."""
    digest = hub.add_synthetic_blob(BIG)
    hub.add_image(REPOSITORY, "latest", [digest])
    return digest


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as running:
        yield running


def shared_port() -> dict[str, str]:
    return {
        "PULLTHROUGH_SERVER__LISTEN": f"127.0.0.1:{free_port()}",
        "PULLTHROUGH_ADMIN__LISTEN": f"127.0.0.1:{free_port()}",
        "PULLTHROUGH_SERVER__REUSE_PORT": "true",
        "PULLTHROUGH_LOG__ACCESS": "false",
    }


async def status_of(running: Service) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{running.admin_url}/api/status") as response:
        document: dict[str, Any] = await response.json()
    return document


def listening(url: str) -> int:
    """How many processes listen there."""
    port = f":{URL(url).port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
    return sum(row[1].endswith(port) and row[3] == "0A" for row in rows)


async def end(running: Service) -> None:
    """Tell it to stop, and see that it ended as it should."""
    running.tell(signal.SIGTERM)
    assert await running.ended() == 0
    assert running.messages("warning") == running.messages("error") == []


async def test_by_a_shared_port_no_pull_fails(
    hub: FakeHub, tmp_path: Path, images: list[Image], stack: AsyncExitStack
) -> None:
    config, environ = write_config(tmp_path, hub), shared_port()
    old = await stack.enter_async_context(service(config, environ))
    async with pulling(old.client_url, images) as pullers, knocking(old.client_url) as knocks:
        await pullers.more()
        for _ in range(ROLLS):
            new = await stack.enter_async_context(service(config, environ))
            answered = [(await status_of(new))["pid"] for _ in range(8)]
            assert set(answered) == {new.process.pid}
            await pullers.more()
            await end(old)
            await pullers.more()
            old = new
    await end(old)
    assert pullers.failures == knocks.failures == []
    assert hub.violations == []


async def test_by_passed_sockets_no_pull_fails(
    hub: FakeHub, tmp_path: Path, images: list[Image], stack: AsyncExitStack
) -> None:
    """As systemd does it: the next one is started when the one before has ended; clients wait in the socket's queue."""
    config = write_config(tmp_path, hub)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as clients:
        running = await stack.enter_async_context(service(config, LISTEN_HERE, {"clients": clients}))
        async with pulling(running.client_url, images) as pullers:
            for _ in range(ROLLS):
                await pullers.more()
                await end(running)
                running = await stack.enter_async_context(service(config, LISTEN_HERE, {"clients": clients}))
            await pullers.more()
        await end(running)
    assert pullers.failures == []


async def test_a_slow_pull_goes_on_to_its_end_while_the_new_process_serves(
    hub: FakeHub, tmp_path: Path, images: list[Image], big: str, stack: AsyncExitStack
) -> None:
    config, environ = write_config(tmp_path, hub), shared_port()
    old = await stack.enter_async_context(service(config, environ))
    client = await stack.enter_async_context(raw_client(old.client_url, receive_buffer=1 << 16))
    client.ask("GET", f"/v2/{REPOSITORY}/blobs/{big}")
    await client.head()
    found = hashlib.sha256(await client.read(BIG // 3))
    new = await stack.enter_async_context(service(config, environ))
    old.tell(signal.SIGTERM)

    async with pulling(new.client_url, images) as pullers:
        await pullers.more()
        found.update(await client.read(BIG // 3))
        await pullers.more()
        assert old.process.returncode is None
        found.update(await client.read(BIG // 3))

    assert f"sha256:{found.hexdigest()}" == big
    assert await old.ended() == 0
    await end(new)
    assert pullers.failures == []


async def test_a_running_fill_ends_in_the_old_process_and_readers_of_both_get_it(
    hub: FakeHub, tmp_path: Path, big: str, stack: AsyncExitStack
) -> None:
    config, environ = write_config(tmp_path, hub), shared_port()
    old = await stack.enter_async_context(service(config, environ))
    hub.hold(big, BIG // 2, times=1)
    readers = [asyncio.ensure_future(pull(old.client_url, big)) for _ in range(3)]
    await hub.wait_held(big)
    new = await stack.enter_async_context(service(config, environ))
    old.tell(signal.SIGTERM)
    await eventually(lambda: listening(old.client_url) == 1)
    later = asyncio.ensure_future(pull(new.client_url, big))
    assert await later == big

    hub.release()
    assert await asyncio.gather(*readers) == [big] * 3
    assert await old.ended() == 0
    assert await pull(new.client_url, big) == big
    await end(new)
    assert hub.violations == []


async def test_a_kept_connection_is_answered_and_then_ended(
    hub: FakeHub, tmp_path: Path, images: list[Image], big: str, stack: AsyncExitStack
) -> None:
    config, environ = write_config(tmp_path, hub), shared_port()
    old = await stack.enter_async_context(service(config, environ))
    hub.hold(big, BIG // 2)
    busy = asyncio.ensure_future(pull(old.client_url, big))
    await hub.wait_held(big)
    kept = [await stack.enter_async_context(raw_client(old.client_url)) for _ in range(2)]
    for client in kept:
        client.ask("GET", "/v2/")
        assert (await client.reply()).status == 200
    new = await stack.enter_async_context(service(config, environ))
    old.tell(signal.SIGTERM)
    await old.logged("stopping")

    kept[0].ask("GET", f"/v2/{images[0].repository}/manifests/latest")
    reply = await kept[0].reply()
    assert (reply.status, reply.headers["Connection"], await kept[0].rest()) == (200, "close", b"")
    hub.release()
    assert await busy == big
    assert await kept[1].rest() == b""
    assert await old.ended() == 0
    await end(new)


async def test_one_that_ends_gives_new_connections_to_the_next_before_it_closes_its_door(
    hub: FakeHub, tmp_path: Path, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two in one process, so that it can be seen who has which connection."""
    monkeypatch.setattr("proxy.app.HANDING_OVER_SECONDS", 3.0)
    server = ServerOptions(listen=Address("127.0.0.1", free_port()), reuse_port=True)
    old, new = [
        await stack.enter_async_context(CacheRig(hub.url, tmp_path / "cache", options={"server": server}))
        for _ in range(2)
    ]
    stopping = asyncio.ensure_future(old.stop())

    async def all_come_to_the_new_one() -> bool:
        async with AsyncExitStack() as clients:
            for _ in range(16):
                client = await clients.enter_async_context(raw_client(new.url))
                client.ask("GET", "/v2/")
                assert (await client.reply()).status == 200
            return len(new.app._connections) == 16

    await eventually(all_come_to_the_new_one)
    assert listening(new.url) == 2
    assert not stopping.done()
    await stopping
    assert listening(new.url) == 1


async def test_the_next_process_keeps_the_folder_when_the_old_one_has_ended(
    hub: FakeHub, tmp_path: Path, stack: AsyncExitStack
) -> None:
    config, environ = write_config(tmp_path, hub), shared_port()
    old = await stack.enter_async_context(service(config, environ))
    assert (await status_of(old))["cache"]["keeper"]
    new = await stack.enter_async_context(service(config, environ))
    assert not (await status_of(new))["cache"]["keeper"]
    await end(old)
    await new.logged("this process keeps the cache folder in order now")
    assert (await status_of(new))["cache"]["keeper"]
    await end(new)


async def pull(url: str, digest: str) -> str:
    """The digest of what came."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/v2/{REPOSITORY}/blobs/{digest}") as response:
        assert response.status == 200
        return f"sha256:{hashlib.sha256(await response.read()).hexdigest()}"
