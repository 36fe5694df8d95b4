"""Starting beside an upstream that is down, and stopping without breaking what runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from proxy.app import StartError
from proxy.config import Address, ServerOptions
from tests.cache_rig import ANY_PORT, CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.raw_http import raw_client

REPOSITORY = "library/alpine"
SIZE = 20_000_000


def add_blob(hub: FakeHub) -> str:
    """A blob larger than what sockets buffer, in an image."""
    digest = hub.add_synthetic_blob(SIZE)
    hub.add_image(REPOSITORY, "latest", [digest])
    return digest


def leftovers(directory: Path) -> list[str]:
    """What a clean store does not have."""
    return [path.name for path in directory.rglob("put-*")]


def index_is_sound(directory: Path) -> bool:
    with closing(sqlite3.connect(directory / "index.sqlite")) as index:
        return bool(index.execute("PRAGMA integrity_check").fetchall() == [("ok",)])


def listens(url: str) -> bool:
    """Whether somebody listens there. Asked of the kernel: a connection made while a listener closes would be lost."""
    port = f":{URL(url).port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
    return any(row[1].endswith(port) and row[3] == "0A" for row in rows)


async def test_a_stop_lets_running_responses_end_and_takes_no_new_ones(cache: CacheRig, hub: FakeHub) -> None:
    digest = add_blob(hub)
    hub.hold(digest, SIZE // 2)
    running = asyncio.ensure_future(cache.get_blob(REPOSITORY, digest))
    await hub.wait_held(digest)
    url = cache.url

    stopping = asyncio.ensure_future(cache.stop())
    await eventually(lambda: not listens(url))
    with pytest.raises(aiohttp.ClientConnectionError):
        await cache.send("GET", "/v2/")
    await asyncio.wait([stopping, running], timeout=1.3)  # Longer than the server alone would wait.
    assert not stopping.done() and not running.done()
    hub.release()
    reply = await running
    await stopping

    assert (reply.status, len(reply.body)) == (200, SIZE)
    assert cache.blobs_on_disk() == {digest}
    assert (leftovers(cache.directory), cache.partials_on_disk()) == ([], {})
    assert index_is_sound(cache.directory)


async def test_a_stop_is_not_held_up_by_a_client_that_takes_nothing(hub: FakeHub, tmp_path: Path) -> None:
    digest = add_blob(hub)
    options = {"server": ServerOptions(listen=ANY_PORT, shutdown_timeout=0.2)}
    async with CacheRig(hub.url, tmp_path / "cache", options=options) as cache:
        await cache.get_blob(REPOSITORY, digest)
        async with raw_client(cache.url, receive_buffer=4096) as client:
            client.ask("GET", f"/v2/{REPOSITORY}/blobs/{digest}")
            await client.head()
            async with asyncio.timeout(3):
                await cache.stop()
            assert len(await client.rest()) < SIZE
        assert index_is_sound(cache.directory)
        await cache.start()
        assert len((await cache.get_blob(REPOSITORY, digest)).body) == SIZE


async def test_a_stop_leaves_the_partial_of_a_fill_and_the_next_run_goes_on_from_it(
    hub: FakeHub, tmp_path: Path
) -> None:
    digest = add_blob(hub)
    hub.hold(digest, SIZE // 2)
    options = {"server": ServerOptions(listen=ANY_PORT, shutdown_timeout=0.2)}
    async with CacheRig(hub.url, tmp_path / "cache", options=options) as cache:
        running = asyncio.ensure_future(cache.get_blob(REPOSITORY, digest))
        await hub.wait_held(digest)
        await eventually(lambda: cache.partials_on_disk() == {digest: SIZE // 2})

        await cache.stop()
        with pytest.raises(aiohttp.ClientPayloadError):
            await running
        assert cache.partials_on_disk() == {digest: SIZE // 2}
        assert (cache.blobs_on_disk(), leftovers(cache.directory)) == (set(), [])

        hub.heal()
        await cache.start()
        assert len((await cache.get_blob(REPOSITORY, digest)).body) == SIZE
        assert hub.requests[-1].range == f"bytes={SIZE // 2}-"


async def test_it_starts_and_serves_what_it_holds_while_upstream_cannot_be_reached(
    cache: CacheRig, hub: FakeHub
) -> None:
    digest = add_blob(hub)
    await cache.get_manifest(REPOSITORY, "latest")
    await cache.get_blob(REPOSITORY, digest)
    await cache.stop()
    await hub.gone()
    cache.clock.advance(3600)

    await cache.start()

    tagged = await cache.get_manifest(REPOSITORY, "latest")
    blob = await cache.get_blob(REPOSITORY, digest)
    assert (tagged.status, tagged.cache_status) == (200, "pullthrough; fwd=stale; detail=unavailable")
    assert (blob.status, len(blob.body)) == (200, SIZE)
    assert (await cache.send("GET", "/v2/")).status == 200
    assert (await cache.get_manifest(REPOSITORY, "other")).status == 503


async def test_ready_once_serving(cache: CacheRig) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/healthz", "/readyz"):
            async with session.get(cache.app.admin_url + path) as response:
                assert response.status == 200


async def test_while_it_stops_it_is_alive_but_not_ready(cache: CacheRig, hub: FakeHub) -> None:
    digest = add_blob(hub)
    hub.hold(digest, SIZE // 2)
    running = asyncio.ensure_future(cache.get_blob(REPOSITORY, digest))
    await hub.wait_held(digest)
    url, admin = cache.url, cache.app.admin_url

    stopping = asyncio.ensure_future(cache.stop())
    await eventually(lambda: not listens(url))
    async with aiohttp.ClientSession() as session:
        found = [(await session.get(admin + path)).status for path in ("/healthz", "/readyz", "/metrics")]
    hub.release()
    await running
    await stopping

    assert found == [200, 503, 200]


async def test_while_it_stops_each_connection_ends_with_its_answer(cache: CacheRig, hub: FakeHub) -> None:
    digest = add_blob(hub)
    hub.hold(digest, SIZE // 2)
    running = asyncio.ensure_future(cache.get_blob(REPOSITORY, digest))
    await hub.wait_held(digest)
    url = cache.url

    async with raw_client(url) as client:
        client.ask("GET", "/v2/")
        assert "Connection" not in (await client.reply()).headers
        stopping = asyncio.ensure_future(cache.stop())
        await eventually(lambda: not listens(url))
        client.ask("GET", f"/v2/{REPOSITORY}/manifests/latest")
        reply = await client.reply()
        assert (reply.status, reply.headers["Connection"], await client.rest()) == (200, "close", b"")

    hub.release()
    assert len((await running).body) == SIZE
    await stopping


async def test_a_taken_port_is_one_clear_line_and_leaves_nothing_open(cache: CacheRig, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = Address("127.0.0.1", taken.getsockname()[1])
        rig = CacheRig(cache.upstream_url, tmp_path / "other", options={"server": ServerOptions(listen=listen)})
        with pytest.raises(StartError) as refusal:
            await rig.start()
    assert f"cannot listen on {listen}" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    await rig.start()  # On the same folder, which is free again.
    await rig.stop()


class Serving:
    """`pullthrough serve` as a process of its own."""

    def __init__(self, process: Process, url: str) -> None:
        self.process = process
        self.url = url
        self.log: list[str] = []

    async def follow_log(self) -> None:
        """Read the log until the process ends."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(line.decode())


@asynccontextmanager
async def serving(hub: FakeHub, folder: Path, **settings: str) -> AsyncIterator[Serving]:
    (folder / "config.toml").write_text(
        f'[[upstream]]\nname = "docker.io"\nurl = "{hub.url}"\n[log]\nformat = "json"\n'
        f'[cache]\ndirectory = "{folder}/cache"\n'
    )
    environment = {"PULLTHROUGH_SERVER__LISTEN": "127.0.0.1:0", "PULLTHROUGH_ADMIN__LISTEN": "127.0.0.1:0"}
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PULLTHROUGH_", "DOCKERHUB_"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "proxy", "serve", "--config", f"{folder}/config.toml"),
        env=bare | environment | settings,
        stderr=PIPE,
    )
    assert process.stderr is not None
    try:
        greeting = json.loads(await process.stderr.readline())["message"]
        running = Serving(process, greeting.split()[1])
        following = asyncio.ensure_future(running.follow_log())
        yield running
        await process.wait()
        await following
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_sigterm_lets_the_running_pull_end_and_exits_with_0(hub: FakeHub, tmp_path: Path) -> None:
    digest = add_blob(hub)
    hub.hold(digest, SIZE // 2)
    async with serving(hub, tmp_path) as running, raw_client(running.url) as client:
        client.ask("GET", f"/v2/{REPOSITORY}/blobs/{digest}")
        await client.head()
        await hub.wait_held(digest)

        running.process.send_signal(signal.SIGTERM)
        await eventually(lambda: not listens(running.url))
        hub.release()
        assert len(await client.read(SIZE)) == SIZE
        assert await asyncio.wait_for(running.process.wait(), 5) == 0

    lines = [json.loads(line) for line in running.log]
    assert [line for line in lines if line.get("level") not in (None, "info")] == []
    assert [line["bytes"] for line in lines if line.get("kind") == "blob"] == [SIZE]
    assert leftovers(tmp_path / "cache") == []
    assert (tmp_path / "cache/blobs/sha256" / digest[7:9] / digest[7:]).stat().st_size == SIZE
    assert index_is_sound(tmp_path / "cache")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stuck_client_does_not_keep_the_process(hub: FakeHub, tmp_path: Path, number: signal.Signals) -> None:
    digest = add_blob(hub)
    async with (
        serving(hub, tmp_path, PULLTHROUGH_SERVER__SHUTDOWN_TIMEOUT="1s") as running,
        raw_client(running.url, receive_buffer=4096) as client,
    ):
        client.ask("GET", f"/v2/{REPOSITORY}/blobs/{digest}")
        await client.head()
        running.process.send_signal(number)
        assert await asyncio.wait_for(running.process.wait(), 5) == 0

    lines = [json.loads(line) for line in running.log]
    assert [line for line in lines if line.get("level") not in (None, "info")] == []
    assert [0 < line["bytes"] < SIZE for line in lines if line.get("kind") == "blob"] == [True]
    assert leftovers(tmp_path / "cache") == []
    assert index_is_sound(tmp_path / "cache")
