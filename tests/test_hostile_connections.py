"""Clients with too many connections, with slow or huge headers, and with what is no HTTP: told so, and ended."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.config import ServerOptions
from proxy.server.connection import MAX_FIELDS, MAX_HEADER_BYTES, READ_BYTES, Connection
from tests.cache_rig import ANY_PORT, CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.leftovers import nothing_left_over
from tests.raw_http import RawClient, RawReply, raw_client

Serve = Callable[..., AbstractAsyncContextManager[CacheRig]]

FILL = "X-Filler: " + "a" * 1000
REFUSED = "pullthrough_connections_refused_total"


@pytest.fixture
def serve(hub: FakeHub, tmp_path: Path) -> Serve:
    """Starts a cache with these settings of [server]."""

    @asynccontextmanager
    async def started(**settings: Any) -> AsyncIterator[CacheRig]:
        options = {"server": ServerOptions(listen=ANY_PORT, **settings)}
        async with CacheRig(hub.url, tmp_path / "cache", options=options) as running:
            yield running

    return started


def assert_is_ours(reply: RawReply, status: int, code: str) -> None:
    """An error as all are, which names no other software."""
    assert (reply.status, reply.code) == (status, code)
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Server"] == "pullthrough"
    assert reply.headers["Connection"] == "close"
    (error,) = json.loads(reply.body)["errors"]
    assert set(error) == {"code", "message", "detail"}


async def connected(cache: CacheRig, count: int) -> None:
    """Wait until the metrics know so many connections."""

    async def known() -> bool:
        return await cache.metric("pullthrough_connections") == count

    await eventually(known, label=f"{count} connections")


def only_connection(cache: CacheRig) -> Connection:
    """The one connection of a client that there is."""
    (connection,) = cache.app._connections.connections
    assert isinstance(connection, Connection)
    return connection


# How many


async def test_beyond_the_limit_of_all_connections_one_is_told_503_and_ended(serve: Serve) -> None:
    async with serve(max_connections=3) as cache, AsyncExitStack() as clients:
        kept = [await clients.enter_async_context(raw_client(cache.url)) for _ in range(3)]
        await connected(cache, 3)

        async with raw_client(cache.url) as late:
            refused = await late.reply()
            assert await late.rest() == b""
        kept[0].ask("GET", "/v2/")
        served = await kept[0].reply()
        kept[1].leave()
        await connected(cache, 2)
        async with raw_client(cache.url) as after:
            after.ask("GET", "/v2/")
            assert (await after.reply()).status == 200

        assert_is_ours(refused, 503, "UNAVAILABLE")
        assert (refused.headers["Retry-After"], served.status) == ("5", 200)
        assert await cache.metric(REFUSED, reason="max_connections") == 1


async def test_beyond_the_limit_of_its_own_a_client_is_told_429_and_others_are_served(serve: Serve) -> None:
    async with serve(max_connections_per_client=2) as cache, AsyncExitStack() as clients:
        for _ in range(2):
            await clients.enter_async_context(raw_client(cache.url, address="127.0.0.2"))
        await connected(cache, 2)

        async with raw_client(cache.url, address="127.0.0.2") as late:
            late.ask("GET", "/v2/")
            refused = await late.reply()
            assert await late.rest() == b""
        async with raw_client(cache.url, address="127.0.0.3") as other:
            other.ask("GET", "/v2/")
            assert (await other.reply()).status == 200

        assert_is_ours(refused, 429, "TOOMANYREQUESTS")
        assert refused.headers["Retry-After"] == "5"
        assert await cache.metric(REFUSED, reason="max_connections_per_client") == 1


async def test_the_place_of_a_connection_that_has_ended_is_free_again(serve: Serve) -> None:
    async with serve(max_connections=2, max_connections_per_client=2) as cache:
        for end in (RawClient.leave, RawClient.reset, RawClient.half_close) * 3:
            async with raw_client(cache.url) as client:
                client.ask("GET", "/v2/")
                assert (await client.reply()).status == 200
                end(client)
                await connected(cache, 0)


async def test_a_limit_of_0_is_none(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    async with serve(max_connections=0, max_connections_per_client=0) as cache, AsyncExitStack() as clients:
        for _ in range(20):
            await clients.enter_async_context(raw_client(cache.url))
        await connected(cache, 20)


async def test_a_refused_client_that_stays_is_ended_all_the_same(serve: Serve) -> None:
    async with serve(max_connections=1) as cache, raw_client(cache.url), raw_client(cache.url) as refused:
        assert (await refused.reply()).status == 503
        await eventually(lambda: cache.app._connections._lingering == 0)


async def test_refusing_a_crowd_leaves_nothing_behind(serve: Serve) -> None:
    async def crowd(size: int) -> None:
        async with AsyncExitStack() as clients:
            refused = [await clients.enter_async_context(raw_client(cache.url)) for _ in range(size)]
            for client in refused[:200:2]:
                assert (await client.reply()).status == 503

    async with serve(max_connections=1) as cache, raw_client(cache.url):
        await connected(cache, 1)
        await crowd(1)
        async with nothing_left_over():
            await crowd(300)  # More than are told so at the same time; half of them never read it.
        assert await cache.metric(REFUSED, reason="max_connections") == 301


async def test_as_many_connections_are_taken_as_there_may_be_files_for(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (262, 262))
    async with serve() as cache, raw_client(cache.url), raw_client(cache.url), raw_client(cache.url) as third:
        assert_is_ours(await third.reply(), 503, "UNAVAILABLE")


# How many at once


async def test_more_requests_than_are_answered_at_a_time_get_503_at_once(serve: Serve, hub: FakeHub) -> None:
    hub.add_image("library/app", "latest")
    async with serve(max_requests=3) as cache, AsyncExitStack() as clients:
        hub.hang("manifest")
        waiting = [await clients.enter_async_context(raw_client(cache.url)) for _ in range(3)]
        for client in waiting:
            client.ask("GET", "/v2/library/app/manifests/latest")
        await hub.wait_held("manifest")
        await eventually(lambda: cache.app.generation.routes._active == 3)

        refused = await cache.send("GET", "/v2/")
        hub.release()
        answered = [await client.reply() for client in waiting]
        after = await cache.send("GET", "/v2/")

        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert json.loads(refused.body)["errors"][0]["code"] == "UNAVAILABLE"
        assert [reply.status for reply in answered] == [200, 200, 200]
        assert after.status == 200
        assert await cache.metric("pullthrough_requests_total", code="503") == 1


async def test_requests_that_queue_on_a_connection_stay_few_and_are_all_answered_in_order(
    cache: CacheRig, hub: FakeHub
) -> None:
    image = hub.add_image("library/app", "latest")
    count = 10_000
    hub.hang("manifest")
    async with raw_client(cache.url) as client:
        client.ask("GET", "/v2/library/app/manifests/latest")
        await hub.wait_held("manifest")
        for number in range(count):
            client.ask("GET", f"/v2/library/app/manifests/..{number}")
        connection = only_connection(cache)
        await eventually(lambda: connection._buffer_paused)
        queued = len(connection._messages)
        hub.release()

        first = await client.reply()
        rest = [await client.reply() for _ in range(count)]

    assert queued <= 32
    assert first.body == image.body
    assert {reply.status for reply in rest} == {400}


# How slow


async def test_a_client_that_says_nothing_is_ended(serve: Serve) -> None:
    async with serve(header_timeout=0.1) as cache, raw_client(cache.url) as client:
        async with asyncio.timeout(5):
            assert await client.rest() == b""
        await connected(cache, 0)
        assert await cache.metric(REFUSED, reason="header_timeout") == 1


@pytest.mark.parametrize("earlier", [0, 2], ids=["its first request", "a later one"])
async def test_a_header_that_drips_is_refused_in_time(serve: Serve, earlier: int) -> None:
    async with serve(header_timeout=0.3) as cache, raw_client(cache.url) as client:
        for _ in range(earlier):
            client.ask("GET", "/v2/")
            assert (await client.reply()).status == 200

        async def drip() -> None:
            client.send(b"GET /v2/ HTTP/1.1\r\n")
            while True:
                client.send(b"X-Drip: 1\r\n")
                await asyncio.sleep(0.02)

        dripping = asyncio.ensure_future(drip())
        async with asyncio.timeout(5):
            refused = await client.reply()
        dripping.cancel()
        assert_is_ours(refused, 408, "UNSUPPORTED")
        await connected(cache, 0)


async def test_a_header_that_begins_in_one_piece_with_the_request_before_is_refused_in_time(serve: Serve) -> None:
    async with serve(header_timeout=0.2) as cache, raw_client(cache.url) as client:
        client.send(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\nGET /v2/ HT")
        async with asyncio.timeout(5):
            assert (await client.reply()).status == 200
            assert_is_ours(await client.reply(), 408, "UNSUPPORTED")


async def test_a_late_header_is_refused_after_the_answer_that_is_under_way(serve: Serve, hub: FakeHub) -> None:
    image = hub.add_image("library/app", "latest")
    async with serve(header_timeout=0.1) as cache, raw_client(cache.url) as client:
        hub.hang("manifest")
        client.ask("GET", "/v2/library/app/manifests/latest")
        await hub.wait_held("manifest")
        client.send(b"GET /v2/ HT")
        connection = only_connection(cache)
        await eventually(lambda: connection._messages)
        hub.release()

        assert (await client.reply()).body == image.body
        assert_is_ours(await client.reply(), 408, "UNSUPPORTED")


async def test_a_slow_but_timely_header_is_read_and_an_idle_connection_is_kept(serve: Serve) -> None:
    async with serve(header_timeout=0.5) as cache, raw_client(cache.url) as client:
        for _ in range(2):
            for byte in b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n":
                client.send(bytes([byte]))
                await client.sent()
            assert (await client.reply()).status == 200
            client.send(b"\r\n")  # Some old clients end a request so; it begins no other.
            await asyncio.sleep(0.7)  # Longer than for a header: nothing of one has come.


# How large


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /v2/" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /v2/?" + b"a" * 8000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"a" * 17_000 + b"\r\n\r\n", 431),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"a" * 12_000 + b"\r\n\r\n", 200),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * MAX_FIELDS + b"\r\n", 431),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * (MAX_FIELDS - 1) + b"\r\n", 200),
        (b"GET /v2/ HTTP/1.1\r\n" + b"a" * 17_000, 431),
    ],
    ids=["line", "long line", "field", "long field", "fields", "many fields", "name"],
)
async def test_the_size_of_a_header_is_bounded(cache: CacheRig, request_head: bytes, status: int) -> None:
    async with raw_client(cache.url) as client:
        client.send(request_head)
        reply = await client.reply()
        if status == 200:
            assert reply.status == 200
        else:
            assert_is_ours(reply, status, "UNSUPPORTED")
            assert await client.rest() == b""


async def test_a_header_that_was_refused_for_its_size_is_not_refused_for_its_time_too(
    serve: Serve, hub: FakeHub
) -> None:
    async with serve(header_timeout=0.2) as cache, raw_client(cache.url) as client:
        hub.hang("manifest")
        client.ask("GET", "/v2/library/app/manifests/latest")
        await hub.wait_held("manifest")
        client.send(b"GET /v2/ HTTP/1.1\r\n")
        client.send(f"{FILL}\r\n".encode() * 40)
        connection = only_connection(cache)
        await eventually(lambda: connection._deaf)
        await asyncio.sleep(0.4)
        assert len(connection._messages) == 1
        hub.release()


async def test_a_header_of_many_large_fields_is_refused_before_its_end(cache: CacheRig) -> None:
    async with raw_client(cache.url) as client:
        client.send(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n")
        for _ in range(MAX_HEADER_BYTES // 1000 + 1):  # Far from the bounds of one field, and of their number.
            client.send(f"{FILL}\r\n".encode())
        assert_is_ours(await client.reply(), 431, "UNSUPPORTED")
        assert await cache.metric(REFUSED, reason="malformed") == 1


# No HTTP

NOT_HTTP = {
    "noise": b"garbage\r\n\r\n",
    "noise without an end": b"\x00\xff\xfe" * 100,
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "SOCKS": b"\x05\x01\x00\x00",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a NUL": b"GET /v2/\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown verb": b"BREW /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown version": b"GET /v2/ HTTP/9.9\r\nHost: x\r\n\r\n",
    "bytes beyond ASCII": b"GET /v2/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET /v2/ HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v2/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "a secret in a broken field": b"GET /v2/ HTTP/1.1\r\nAuthorization Basic c2VjcmV0\r\n\r\n",
}
SMUGGLED = {
    "both lengths": b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    "both lengths, turned": b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 5",
    "a list of lengths": b"Content-Length: 0, 5",
    "a signed length": b"Content-Length: +5",
    "a negative length": b"Content-Length: -5",
    "a length in hex": b"Content-Length: 0x5",
    "a length beyond all": b"Content-Length: 99999999999999999999",
    "an unknown coding": b"Transfer-Encoding: xchunked",
    "a coding after chunked": b"Transfer-Encoding: chunked, identity",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked, identity",
    "a space before the colon": b"Transfer-Encoding : chunked",
    "a folded field": b"Content-Length:\r\n 5",
    "a bare LF": b"A: b\nContent-Length: 5",
    "a bare CR": b"A: b\rContent-Length: 5",
}


@pytest.mark.parametrize("data", NOT_HTTP.values(), ids=NOT_HTTP)
async def test_what_is_no_http_is_refused_in_our_own_words_and_not_logged(
    cache: CacheRig, hub: FakeHub, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    caplog.set_level(logging.DEBUG, "proxy")
    async with raw_client(cache.url) as client:
        client.send(data)
        reply = await client.reply()
        assert await client.rest() == b""

    assert_is_ours(reply, 400, "UNSUPPORTED")
    assert not {word for word in (b"aiohttp", b"Python", b"Traceback", b"c2VjcmV0") if word in reply.body}
    assert (await cache.send("GET", "/v2/")).status == 200
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING or each.exc_info] == []
    assert "c2VjcmV0" not in caplog.text
    assert hub.requests == []
    assert await cache.metric(REFUSED, reason="malformed") == 1


@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/1.0", "HTTP/2.0"])
async def test_what_calls_itself_another_version_is_answered_in_ours_and_ended(cache: CacheRig, version: str) -> None:
    async with raw_client(cache.url) as client:
        client.send(f"GET /v2/ {version}\r\nHost: x\r\n\r\n".encode())
        answer = await client.rest()
    assert answer.startswith((b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n"))


@pytest.mark.parametrize("fields", SMUGGLED.values(), ids=SMUGGLED)
async def test_a_request_whose_end_could_be_read_in_two_ways_is_refused_with_all_that_follows(
    cache: CacheRig, fields: bytes
) -> None:
    async with raw_client(cache.url) as client:
        client.send(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n\r\n0\r\n\r\n")
        client.send(b"GET /v2/library/smuggled/manifests/x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert_is_ours(await client.reply(), 400, "UNSUPPORTED")
        assert await client.rest() == b""


@pytest.mark.parametrize(
    "field", ["Accept", "Range", "If-None-Match", "If-Range", "Authorization", "Host", "User-Agent", "Cookie"]
)
async def test_no_value_of_a_header_is_trouble(cache: CacheRig, hub: FakeHub, field: str) -> None:
    image = hub.add_image("library/app", "latest", [b"layer" * 100])
    things = ("manifests/latest", f"manifests/{image.digest}", f"blobs/{image.layers[0]}", "tags/list")
    paths = [*(f"/v2/library/app/{each}" for each in things), "/v2/", "/setup/dockerd"]
    host = b"" if field == "Host" else b"Host: cache\r\n"
    async with raw_client(cache.url) as client:
        for value in (b"\xaa\xff", b"", b"a" * 5000, b",;=\"'\\,,", b"*/\xc3", b"\xc4\xb0"):
            for path in paths:
                client.send(f"GET {path} HTTP/1.1\r\n".encode() + host + f"{field}: ".encode() + value + b"\r\n\r\n")
                reply = await client.reply()
                refused = field == "Host" and path.startswith("/setup") and reply.status == 400
                assert (path, value, reply.status) == (path, value, 200) or refused


# Bodies


@pytest.mark.parametrize(
    ("method", "fields", "status"),
    [
        ("POST", "Content-Length: 10000000000", 405),
        ("PUT", "Transfer-Encoding: chunked", 405),
        ("PATCH", "Content-Length: 5\r\nExpect: 100-continue", 405),
        ("GET", "Content-Length: 5\r\nExpect: 100-continue", 200),
        ("GET", "Content-Length: 10000000000", 200),
        ("GET", "Transfer-Encoding: chunked", 200),
        ("CONNECT", "A: b", 405),
    ],
)
async def test_a_request_with_a_body_is_answered_without_it_and_the_connection_ends_soon(
    cache: CacheRig, monkeypatch: pytest.MonkeyPatch, method: str, fields: str, status: int
) -> None:
    monkeypatch.setattr("proxy.server.connection.LINGERING_SECONDS", 0.1)
    async with raw_client(cache.url) as client, asyncio.timeout(5):
        client.ask(method, "x:1" if method == "CONNECT" else "/v2/", *fields.split("\r\n"))
        assert (await client.reply()).status == status
        if method != "CONNECT":
            assert await client.rest() == b""


async def test_a_body_that_never_ends_is_thrown_away_for_a_moment_and_then_its_connection_ended(
    cache: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.server.connection.LINGERING_SECONDS", 0.2)

    async def pour() -> None:
        while True:
            client.send(b"%x\r\n%b\r\n" % (1 << 16, bytes(1 << 16)))
            await client.sent()

    async with raw_client(cache.url) as client, asyncio.timeout(10):
        client.ask("POST", "/v2/library/app/blobs/uploads/", "Transfer-Encoding: chunked")
        pouring = asyncio.ensure_future(pour())
        assert (await client.reply()).status == 405
        with pytest.raises(ConnectionError):
            await pouring
        await connected(cache, 0)


async def test_a_body_is_not_taken_in_while_its_request_waits(cache: CacheRig, hub: FakeHub) -> None:
    hub.hang("manifest")
    async with raw_client(cache.url) as client:
        client.ask("GET", "/v2/library/app/manifests/latest", "Content-Length: 1000000000")
        await hub.wait_held("manifest")
        client.send(bytes(20_000_000))
        connection = only_connection(cache)
        await eventually(lambda: connection._reading_paused)
        assert connection._body.total_bytes < 200_000
        hub.release()


async def test_little_is_read_at_once(cache: CacheRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that many connections that send as much as they can take little memory each."""
    sizes: list[int] = []
    received = Connection.data_received

    def recorded(self: Connection, data: bytes) -> None:
        sizes.append(len(data))
        received(self, data)

    monkeypatch.setattr(Connection, "data_received", recorded)
    async with raw_client(cache.url) as client:
        client.ask("POST", "/v2/", "Content-Length: 1000000")
        client.send(bytes(1_000_000))
        client.ask("GET", "/v2/")
        assert [(await client.reply()).status for _ in range(2)] == [405, 200]

    assert max(sizes) <= READ_BYTES


async def test_a_body_is_never_unpacked(cache: CacheRig) -> None:
    async with raw_client(cache.url) as client:
        client.ask("POST", "/v2/", "Content-Encoding: gzip", "Content-Length: 8")
        client.send(b"not gzip")
        assert (await client.reply()).status == 405
        client.ask("GET", "/v2/")
        assert (await client.reply()).status == 200


@pytest.mark.parametrize(
    "body", [b"no size\r\n", b"5\r\nhello--\r\n", b"ffffffffffffffffff\r\n", b"0\r\nA\r\n\r\n", b"-1\r\n\r\n"]
)
async def test_a_body_in_broken_chunks_is_nothing_to_log(
    cache: CacheRig, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    async with raw_client(cache.url) as client:
        client.ask("PUT", "/v2/", "Transfer-Encoding: chunked")
        client.send(body)
        assert (await client.reply()).status in (400, 405)
        async with asyncio.timeout(5):
            await client.rest()
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING or each.exc_info] == []
