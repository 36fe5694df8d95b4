"""Connections of clients: kept in step, broken off rather than ended short, left without a trace."""

from __future__ import annotations

import asyncio
import logging
import os
from asyncio import IncompleteReadError
from pathlib import Path

import pytest

from proxy.server.floor import Floor
from proxy.server.pump import Pump
from tests.cache_rig import CacheRig, gather
from tests.eventually import eventually
from tests.fake_hub import FakeHub, Image
from tests.raw_http import RawReply, raw_client

REPOSITORY = "library/alpine"
BASE = f"/v2/{REPOSITORY}"
LARGE = 20_000_000
CREDENTIALS = "Authorization: Basic Ym9iOmNsaWVudC1wYXNzd29yZA=="


def open_files() -> set[str]:
    """What the descriptors of this process stand for."""
    links = (Path(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))
    return {os.readlink(link) for link in links if link.is_symlink()}


def alarms(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log holds of errors and of tracebacks."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]


@pytest.fixture
def image(hub: FakeHub) -> Image:
    return hub.add_image(REPOSITORY, "latest", [bytes(range(256)) * 1024, b"small" * 100])


async def test_a_connection_stays_in_step_whatever_is_answered(cache: CacheRig, hub: FakeHub, image: Image) -> None:
    large, small = (f"{BASE}/blobs/{digest}" for digest in image.layers)
    content = bytes(range(256)) * 1024
    known = f'If-None-Match: "{image.digest}"'
    exchanges: list[tuple[str, str, tuple[str, ...], int, bytes | None]] = [
        ("HEAD", f"{BASE}/manifests/latest", (), 200, b""),
        ("GET", f"{BASE}/manifests/latest", (), 200, image.body),
        ("GET", f"{BASE}/manifests/latest", (known,), 304, b""),
        ("GET", large, (), 200, content),
        ("HEAD", large, (), 200, b""),
        ("GET", large, ("Range: bytes=5-70004",), 206, content[5:70005]),
        ("GET", large, ("Range: bytes=999999999-",), 416, None),
        ("GET", large, (f'If-None-Match: "{image.layers[0]}"',), 304, b""),
        ("GET", small, (), 200, b"small" * 100),
        ("GET", small, ("Range: bytes=-5",), 206, b"small"),
        ("HEAD", "/v2/UPPER/manifests/x", (), 400, b""),
        ("GET", f"{BASE}/manifests/none", (), 404, None),
        ("HEAD", f"{BASE}/manifests/none", (), 404, b""),
        ("DELETE", f"{BASE}/manifests/latest", (), 405, None),
        ("HEAD", "/v2/", (), 200, b""),
        ("GET", large, (), 200, content),
        ("GET", "/v2/", (), 200, b"{}"),
    ]

    def check(reply: RawReply, method: str, path: str, status: int, body: bytes | None) -> None:
        assert (method, path, reply.status) == (method, path, status)
        assert body is None or reply.body == body

    async with raw_client(cache.url) as client:
        for method, path, lines, status, body in exchanges:
            client.ask(method, path, *lines)
            check(await client.reply(method), method, path, status, body)
        for method, path, lines, _, _ in exchanges:
            client.ask(method, path, *lines)
        for method, path, _, status, body in exchanges:
            check(await client.reply(method), method, path, status, body)


async def test_the_body_of_a_refused_request_is_not_taken_for_the_next_one(cache: CacheRig) -> None:
    smuggled = b"GET /v2/_catalog HTTP/1.1\r\nHost: x\r\n\r\n"

    async with raw_client(cache.url) as client:
        client.ask("PUT", "/v2/a/b/manifests/x", f"Content-Length: {len(smuggled)}")
        client.send(smuggled)
        client.ask("GET", "/v2/")
        replies = [await client.reply(), await client.reply()]

    assert [reply.status for reply in replies] == [405, 200]


async def test_an_old_client_is_answered_and_its_connection_closed(cache: CacheRig, image: Image) -> None:
    async with raw_client(cache.url) as client:
        client.send(f"GET {BASE}/blobs/{image.layers[0]} HTTP/1.0\r\n\r\n".encode())
        answer = await client.rest()

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200") or head.startswith(b"HTTP/1.1 200")
    assert body == bytes(range(256)) * 1024


async def test_upstreams_failure_in_mid_body_breaks_the_connection(
    cache: CacheRig, hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    digest = hub.add_synthetic_blob(LARGE)
    image = hub.add_image(REPOSITORY, "latest", [digest])
    rule = hub.corrupt(digest, at_byte=LARGE - 1)

    async with raw_client(cache.url) as client:
        client.ask("GET", f"{BASE}/blobs/{image.layers[0]}")
        client.ask("GET", "/v2/")
        status, headers = await client.head()
        with pytest.raises(IncompleteReadError) as short:
            async with asyncio.timeout(5):
                await client.read(int(headers["Content-Length"]))

    received = short.value.partial
    assert (status, headers["Content-Length"]) == (200, str(LARGE))
    assert received == hub.content_of(digest).read(0, len(received))
    assert alarms(caplog) == []
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {})
    assert await cache.metric("pullthrough_aborted_total", kind="blob") == 0

    hub.heal(rule.target)
    again = await cache.get_blob(REPOSITORY, digest)
    assert (again.status, len(again.body)) == (200, LARGE)


@pytest.mark.parametrize("warm", [True, False], ids=["from the store", "from a fill"])
async def test_a_client_that_leaves_in_mid_body_leaves_nothing_behind(
    cache: CacheRig, hub: FakeHub, caplog: pytest.LogCaptureFixture, warm: bool
) -> None:
    digest = hub.add_synthetic_blob(LARGE)
    hub.add_image(REPOSITORY, "latest", [digest])
    if warm:
        await cache.get_blob(REPOSITORY, digest)
    before = open_files()
    if not warm:
        hub.hold(digest, LARGE // 2)

    for ranged in ((), ("Range: bytes=1000000-",)):
        async with raw_client(cache.url, receive_buffer=4096) as client:
            client.ask("GET", f"{BASE}/blobs/{digest}", *ranged)
            await client.head()
            await client.read(100_000)
            client.leave()

    async def aborted() -> bool:
        return await cache.metric("pullthrough_aborted_total", kind="blob") == 2

    await eventually(aborted)
    hub.release()
    await eventually(lambda: cache.app.status()["fills"] == [])
    assert alarms(caplog) == []
    assert cache.blobs_on_disk() >= {digest}
    await eventually(lambda: {file for file in open_files() if str(cache.directory) in file} <= before)
    assert hub.cdn_count(digest) == 1
    assert await cache.metric("pullthrough_requests_total", kind="blob", code="200") == (2 if warm else 1)
    assert await cache.metric("pullthrough_requests_total", kind="blob", code="206") == 1


async def test_a_client_that_takes_nothing_is_cut_off_without_alarm(
    cache: CacheRig, hub: FakeHub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hub.add_synthetic_blob(LARGE)
    hub.add_image(REPOSITORY, "latest", [digest])
    await cache.get_blob(REPOSITORY, digest)
    monkeypatch.setattr("proxy.app.generation.Pump", lambda: Pump(Floor(bytes=1, seconds=0.1)))
    await cache.restart()

    async with raw_client(cache.url, receive_buffer=4096) as client:
        client.ask("GET", f"{BASE}/blobs/{digest}")

        async def aborted() -> bool:
            return await cache.metric("pullthrough_aborted_total", kind="blob") == 1

        await eventually(aborted)
        assert len(await client.rest()) < LARGE

    assert alarms(caplog) == []


async def test_a_client_that_leaves_before_the_headers_is_counted_as_such(
    cache: CacheRig, hub: FakeHub, image: Image, caplog: pytest.LogCaptureFixture
) -> None:
    hub.hang("cdn")
    async with raw_client(cache.url) as client:
        client.ask("GET", f"{BASE}/blobs/{image.layers[0]}")
        await hub.wait_held("cdn")
        client.leave()

    async def counted() -> bool:
        return await cache.metric("pullthrough_requests_total", kind="blob", code="499") == 1

    await eventually(counted)
    hub.release()
    assert alarms(caplog) == []
    assert (await cache.get_blob(REPOSITORY, image.layers[0])).body == bytes(range(256)) * 1024


async def test_credentials_of_clients_are_ignored_and_go_nowhere(
    cache: CacheRig, hub: FakeHub, image: Image, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with raw_client(cache.url) as client:
        for path in ("/v2/", f"{BASE}/manifests/latest", f"{BASE}/blobs/{image.layers[0]}"):
            client.ask("GET", path, CREDENTIALS, "Cookie: session=client-password")
            assert (await client.reply()).status == 200
    await cache.stop()

    secret = CREDENTIALS.rpartition(" ")[2]
    assert all(secret not in str(request.headers) + request.url for request in hub.requests)
    assert all("Cookie" not in request.headers for request in hub.requests)
    assert secret not in caplog.text + cache.log.getvalue()
    await cache.start()


async def test_small_requests_are_answered_beside_large_ones(cache: CacheRig, hub: FakeHub) -> None:
    digest = hub.add_synthetic_blob(LARGE)
    hub.add_image(REPOSITORY, "latest", [digest])
    await cache.get_blob(REPOSITORY, digest)
    await cache.get_manifest(REPOSITORY, "latest")

    large = [asyncio.ensure_future(cache.get_blob(REPOSITORY, digest)) for _ in range(8)]
    small = 0
    while not all(each.done() for each in large):
        small += (await cache.get_manifest(REPOSITORY, "latest")).status == 200
    replies = await gather(*large)

    assert {(reply.status, len(reply.body)) for reply in replies} == {(200, LARGE)}
    assert small >= 5
