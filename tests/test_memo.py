"""Requests of the same bytes within a second: answered unparsed, and yet as if each had been parsed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from proxy.config import CacheOptions, LogOptions, ServerOptions, Share
from proxy.oci.names import Digest
from proxy.server import repeats
from proxy.store.contents import read_whole
from tests.blob_rig import add_layer
from tests.cache_rig import ANY_PORT, CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.house_rig import purged
from tests.quota_rig import api
from tests.raw_http import RawClient, RawReply, raw_client

REPOSITORY = "library/alpine"
HITS = "pullthrough_hits_total"


@pytest.fixture
async def client(cache: CacheRig) -> AsyncIterator[RawClient]:
    """A connection that was answered something: its first request is always parsed."""
    async with raw_client(cache.url) as client:
        client.ask("GET", "/v2/")
        await client.reply()
        yield client


def parsed(cache: CacheRig) -> int:
    """How many requests were parsed up to now."""
    return cache.app._connections.requests_count


async def ask(client: RawClient, path: str, *lines: str, method: str = "GET") -> RawReply:
    client.ask(method, path, *lines)
    return await client.reply(method)


def known(reply: RawReply) -> dict[str, str]:
    """The headers but Date, of which there has to be one."""
    headers = dict(reply.headers)
    assert headers.pop("Date").endswith("GMT")
    return headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("kind", ["tag", "digest", "config"])
async def test_the_same_bytes_get_the_same_answer_without_being_parsed(
    cache: CacheRig, hub: FakeHub, client: RawClient, kind: str, method: str
) -> None:
    image = hub.add_image(REPOSITORY, "latest", [b"layer"])
    config = json.loads(image.body)["config"]["digest"]
    path = {
        "tag": f"/v2/{REPOSITORY}/manifests/latest",
        "digest": f"/v2/{REPOSITORY}/manifests/{image.digest}",
        "config": f"/v2/{REPOSITORY}/blobs/{config}",
    }[kind]
    await ask(client, path)
    if kind == "config":
        index = cache.app.store.index
        await eventually(lambda: index.blob_size(Digest.parse(config)) is not None, label="it is stored")
    before = await ask(client, path, method=method)
    count = parsed(cache)
    replies = [await ask(client, path, method=method) for _ in range(3)]

    assert parsed(cache) == count
    assert (before.status, before.headers["Cache-Status"]) == (200, "pullthrough; hit")
    for reply in replies:
        assert (reply.status, known(reply), reply.body) == (before.status, known(before), before.body)


async def test_each_is_counted_and_logged_and_written_into_the_books(
    cache: CacheRig, hub: FakeHub, client: RawClient
) -> None:
    image = hub.add_image(REPOSITORY, "latest", [])
    path = f"/v2/{REPOSITORY}/manifests/{image.digest}"
    for _ in range(2):
        await ask(client, path)
    before, lines = await cache.metrics(), cache.log.getvalue().count(image.digest)

    for _ in range(5):
        await ask(client, path)

    after = await cache.metrics()
    grown = {name: after[key] - before.get(key, 0) for key in after for name in (key[0],) if "manifest" in str(key[1])}
    assert grown[HITS] == grown["pullthrough_time_to_first_byte_seconds_count"] == 5
    assert grown["pullthrough_requests_total"] == 5
    assert grown["pullthrough_served_bytes_total"] == 5 * len(image.body)
    await eventually(lambda: cache.log.getvalue().count(image.digest) >= lines + 5, label="they are logged")
    assert (await api(cache, "/api/top?by=client"))["rows"][0]["answers"] == 7


async def test_whoever_reads_the_figures_reads_all_up_to_now(
    cache: CacheRig, hub: FakeHub, client: RawClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "_SETTLE_SECONDS", 60.0)
    image = hub.add_image(REPOSITORY, "latest", [])
    for _ in range(5):
        await ask(client, f"/v2/{REPOSITORY}/manifests/{image.digest}")
    assert (await cache.status())["counters"]["hits"]["manifest"] == 4
    for _ in range(5):
        await ask(client, f"/v2/{REPOSITORY}/manifests/{image.digest}")
    assert cache.app.metrics.alerting()["hits"]["manifest"] == 9
    for _ in range(5):
        await ask(client, f"/v2/{REPOSITORY}/manifests/{image.digest}")
    assert (await cache.metric(HITS, kind="manifest")) == 14
    assert cache.app.quotas.traffic.tallies()["docker.io"].answers == 15


async def test_what_nobody_reads_is_counted_all_the_same(cache: CacheRig, hub: FakeHub, client: RawClient) -> None:
    image = hub.add_image(REPOSITORY, "latest", [])
    for _ in range(5):
        await ask(client, f"/v2/{REPOSITORY}/manifests/{image.digest}")
    count = partial(cache.app.metrics.registry.get_sample_value, HITS, {"kind": "manifest"})
    await eventually(lambda: count() == 4, label="it is counted")


async def test_what_was_answered_last_is_in_the_books_of_the_next_process(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(REPOSITORY, "latest", [])
    async with raw_client(cache.url) as client:
        for _ in range(5):
            await ask(client, f"/v2/{REPOSITORY}/manifests/{image.digest}")
    await cache.restart()
    assert (await api(cache, "/api/top?by=client"))["rows"][0]["answers"] == 5


async def test_without_an_access_log_nothing_else_is_missing(hub: FakeHub, tmp_path: Path) -> None:
    image = hub.add_image(REPOSITORY, "latest", [])
    options = {"log": LogOptions(access=False)}
    async with CacheRig(hub.url, tmp_path / "cache", options=options) as cache, raw_client(cache.url) as client:
        for _ in range(4):
            assert (await ask(client, f"/v2/{REPOSITORY}/manifests/{image.digest}")).body == image.body
        assert await cache.metric(HITS, kind="manifest") == 3
        assert cache.log.getvalue() == ""


async def test_what_is_asked_by_others_is_booked_for_them(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(REPOSITORY, "latest", [])
    path = f"/v2/{REPOSITORY}/manifests/{image.digest}"
    for address in ("127.0.0.1", "127.0.0.7"):
        async with raw_client(cache.url, address=address) as client:
            for _ in range(3):
                await ask(client, path)

    rows = {row["name"]: row["answers"] for row in (await api(cache, "/api/top?by=client"))["rows"]}
    assert rows == {"127.0.0.1": 3, "127.0.0.7": 3}
    peers = [f'"peer": "{address}"' for address in rows]
    await eventually(lambda: [cache.log.getvalue().count(each) for each in peers] == [3, 3], label="all are logged")


async def test_a_tag_is_asked_for_again_when_its_window_ends(cache: CacheRig, hub: FakeHub, client: RawClient) -> None:
    hub.add_image(REPOSITORY, "latest", [])
    path = f"/v2/{REPOSITORY}/manifests/latest"
    for _ in range(3):
        await ask(client, path)
    moved = hub.add_image(REPOSITORY, "latest", [b"new"])
    cache.clock.advance(cache.tags - 0.25)
    ages = [(await ask(client, path)).headers.get("Age") for _ in range(2)]
    cache.clock.advance(0.25)

    assert ages == [str(int(cache.tags) - 1)] * 2
    assert (await ask(client, path)).body == moved.body


async def test_age_goes_on(cache: CacheRig, hub: FakeHub, client: RawClient) -> None:
    hub.add_image(REPOSITORY, "latest", [])
    path = f"/v2/{REPOSITORY}/manifests/latest"
    cache.clock.advance(0.5)
    await ask(client, path)

    ages = []
    for _ in range(6):
        ages += [(await ask(client, path)).headers["Age"], (await ask(client, path)).headers["Age"]]
        cache.clock.advance(0.5)

    assert ages == ["0", "0", "0", "0", "1", "1", "1", "1", "2", "2", "2", "2"]


async def test_a_clock_that_is_set_back_ends_what_is_kept(cache: CacheRig, hub: FakeHub, client: RawClient) -> None:
    image = hub.add_image(REPOSITORY, "latest", [])
    for _ in range(3):
        await ask(client, f"/v2/{REPOSITORY}/manifests/{image.digest}")
    count = parsed(cache)
    cache.clock.advance(-5)

    await ask(client, f"/v2/{REPOSITORY}/manifests/{image.digest}")

    assert parsed(cache) == count + 1


async def test_what_was_purged_is_not_answered(cache: CacheRig, hub: FakeHub, client: RawClient) -> None:
    hub.add_image(REPOSITORY, "latest", [])
    path = f"/v2/{REPOSITORY}/manifests/latest"
    for _ in range(3):
        await ask(client, path)
    await purged(cache, image=REPOSITORY)
    hub.reset_counts()

    reply = await ask(client, path)

    assert (reply.status, hub.counted_pulls) == (200, 1)


async def test_what_became_private_is_not_answered(cache: CacheRig, hub: FakeHub, client: RawClient) -> None:
    image = hub.add_image(REPOSITORY, "latest", [])
    for _ in range(3):
        await ask(client, f"/v2/{REPOSITORY}/manifests/{image.digest}")
    hub.make_private(REPOSITORY)
    cache.clock.advance(cache.config().access.remember + 1)

    assert (await ask(client, f"/v2/{REPOSITORY}/manifests/{image.digest}")).status in (401, 403, 404)


async def test_a_connection_that_is_to_end_is_told_so(cache: CacheRig, hub: FakeHub, client: RawClient) -> None:
    image = hub.add_image(REPOSITORY, "latest", [])
    for _ in range(3):
        await ask(client, f"/v2/{REPOSITORY}/manifests/{image.digest}")
    await cache.app.generation.routes.drain()

    assert (await ask(client, f"/v2/{REPOSITORY}/manifests/{image.digest}")).headers["Connection"] == "close"


async def test_it_can_be_switched_off(hub: FakeHub, tmp_path: Path) -> None:
    image = hub.add_image(REPOSITORY, "latest", [])
    options = {"server": ServerOptions(listen=ANY_PORT, memo=False)}
    async with CacheRig(hub.url, tmp_path / "cache", options=options) as cache, raw_client(cache.url) as client:
        for _ in range(4):
            await ask(client, f"/v2/{REPOSITORY}/manifests/{image.digest}")
        assert parsed(cache) == 4


async def test_what_is_answered_counts_as_used(cache: CacheRig, hub: FakeHub, client: RawClient) -> None:
    image = hub.add_image(REPOSITORY, "latest", [])
    for _ in range(2):
        await ask(client, f"/v2/{REPOSITORY}/manifests/{image.digest}")
    await cache.app.store.usage.flush()
    count = parsed(cache)

    await ask(client, f"/v2/{REPOSITORY}/manifests/{image.digest}")

    assert parsed(cache) == count
    assert Digest.parse(image.digest) in cache.app.store.usage


@pytest.mark.parametrize("parsed_before", [0, 3])
async def test_a_connection_is_kept_while_it_is_used(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parsed_before: int
) -> None:
    """Neither the time for a first request nor that for another one ends it; when it is not used it does end."""
    monkeypatch.setattr("proxy.server.connections.KEEP_ALIVE_SECONDS", 0.5)
    image = hub.add_image(REPOSITORY, "latest", [])
    path = f"/v2/{REPOSITORY}/manifests/{image.digest}"
    options = {"server": ServerOptions(listen=ANY_PORT, header_timeout=0.4)}
    async with CacheRig(hub.url, tmp_path / "cache", options=options) as cache, raw_client(cache.url) as client:
        for _ in range(3):
            await cache.send("GET", path)
        for _ in range(parsed_before):
            await ask(client, path, "X: y")
        for _ in range(2):
            await ask(client, path)
        count, ends = parsed(cache), asyncio.get_running_loop().time() + 1.2
        while asyncio.get_running_loop().time() < ends:
            await ask(client, path)
        assert parsed(cache) == count
        async with asyncio.timeout(5):
            assert await client.rest() == b""


async def test_requests_are_answered_in_their_order(cache: CacheRig, hub: FakeHub, client: RawClient) -> None:
    image = hub.add_image(REPOSITORY, "latest", [])
    cold = hub.add_image("library/cold", "latest", [b"cold"])
    path = f"/v2/{REPOSITORY}/manifests/{image.digest}"
    for _ in range(3):
        await ask(client, path)
    gate = hub.hang("manifest")
    client.ask("GET", f"/v2/library/cold/manifests/{cold.digest}")
    await eventually(lambda: hub.held() == 1, label="upstream is asked")
    client.ask("GET", path)
    await client.sent()
    await cache.send("GET", "/v2/")  # By then it has arrived.
    gate.release()

    assert [(await client.reply()).body for _ in range(2)] == [cold.body, image.body]


async def test_an_answer_is_not_kept_for_what_came_while_it_was_made(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are hits, and the first one waits for the disk."""
    image = hub.add_image(REPOSITORY, "latest", [])
    config = json.loads(image.body)["config"]["digest"]
    first, second = f"/v2/{REPOSITORY}/manifests/{image.digest}", f"/v2/{REPOSITORY}/blobs/{config}"
    reading, gate = threading.Event(), threading.Event()

    def slowly(path: Path, digest: Digest) -> bytes | None:
        reading.set()
        assert gate.wait(10)
        return read_whole(path, digest)

    options = {"cache": CacheOptions(directory=tmp_path / "cache", memory=0, min_free=Share(0), scrub_rate=0)}
    async with CacheRig(hub.url, tmp_path / "cache", options=options) as cache, raw_client(cache.url) as client:
        for path in (first, second, first):
            right = await ask(client, path)
        body = (await ask(client, second)).body
        cache.clock.advance(2)
        monkeypatch.setattr("proxy.store.blobs.read_whole", slowly)
        client.ask("GET", first)
        await eventually(reading.is_set, label="the disk is read")
        client.ask("GET", second)
        await client.sent()
        await cache.send("GET", "/v2/")  # By then the second one was received, too.
        gate.set()

        replies = [await client.reply() for _ in range(2)]
        assert [reply.body for reply in replies] == [right.body, body]
        assert (await ask(client, second)).body == body


@pytest.mark.parametrize("begun", [b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX-A: ", b"GET /v2/ HTTP/1.1\r\nHost: a\r\n"])
async def test_what_goes_on_with_a_request_is_none(
    cache: CacheRig, hub: FakeHub, client: RawClient, begun: bytes
) -> None:
    image = hub.add_image(REPOSITORY, "latest", [])
    path = f"/v2/{REPOSITORY}/manifests/{image.digest}"
    for _ in range(3):
        await ask(client, path)
    client.send(begun)
    await client.sent()
    await cache.send("GET", "/v2/")  # By then it has arrived.

    assert (await ask(client, path)).body != image.body


async def test_what_comes_behind_a_request_is_not_lost(cache: CacheRig, hub: FakeHub, client: RawClient) -> None:
    image = hub.add_image(REPOSITORY, "latest", [])
    whole = f"GET /v2/{REPOSITORY}/manifests/{image.digest} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    for _ in range(4):
        client.send(whole + b"GET /v2/ HTTP/1.1\r\n")
        assert (await client.reply()).body == image.body
        client.send(b"Host: a\r\n\r\n")
        assert (await client.reply()).body == b"{}"


async def test_a_body_is_waited_for(cache: CacheRig, hub: FakeHub, client: RawClient) -> None:
    image = hub.add_image(REPOSITORY, "latest", [])
    for _ in range(4):
        client.ask("GET", f"/v2/{REPOSITORY}/manifests/{image.digest}", "Content-Length: 5")
        await client.sent()
        client.send(b"hello")
        assert (await client.reply()).body == image.body


@pytest.mark.parametrize(
    ("line", "headers"), [("HTTP/1.1", "Connection: close\r\n"), ("HTTP/1.0", ""), ("HTTP/1.0", "A: b\r\n")]
)
async def test_a_connection_that_the_client_wants_to_end_is_ended(
    cache: CacheRig, hub: FakeHub, line: str, headers: str
) -> None:
    image = hub.add_image(REPOSITORY, "latest", [])
    whole = f"GET /v2/{REPOSITORY}/manifests/{image.digest} {line}\r\nHost: a\r\n{headers}\r\n".encode()
    for _ in range(3):
        async with raw_client(cache.url) as client:
            await ask(client, "/v2/")
            client.send(whole)
            async with asyncio.timeout(5):
                assert (await client.rest()).endswith(image.body)


async def test_an_old_client_gets_answers_of_its_version(cache: CacheRig, hub: FakeHub, client: RawClient) -> None:
    image = hub.add_image(REPOSITORY, "latest", [])
    path = f"/v2/{REPOSITORY}/manifests/{image.digest}"
    for _ in range(3):
        client.send(f"GET {path} HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n".encode())
        assert await client.read(8) == b"HTTP/1.0"
        assert (await client.reply()).headers["Connection"] == "keep-alive"


async def test_a_client_that_takes_nothing_gets_no_more(hub: FakeHub, tmp_path: Path) -> None:
    path = add_layer(hub, 60_000).path
    async with CacheRig(hub.url, tmp_path / "cache") as cache, raw_client(cache.url, receive_buffer=4096) as client:
        for _ in range(3):
            await ask(client, path)
        for _ in range(400):
            client.ask("GET", path)
        (connection,) = cache.app._connections.connections
        await eventually(lambda: connection.writing_paused, label="it takes no more")
        await cache.send("GET", "/v2/")
        assert connection.transport is not None
        assert connection.transport.get_write_buffer_size() < 2 * 60_000


async def stream(cache: CacheRig, pieces: list[bytes], requests: int) -> list[tuple[int, dict[str, str], bytes]]:
    """The answers to these bytes, sent in these pieces, each of which is read before the next is sent."""
    replies = []
    async with raw_client(cache.url) as client:
        client.ask("GET", "/v2/")
        await client.reply()
        for piece in pieces:
            client.send(piece)
            await client.sent()
            await asyncio.sleep(0)
        for _ in range(requests):
            status, headers = await client.head()
            body = await client.read(int(headers.get("Content-Length", 0))) if headers.get("X-Head") is None else b""
            assert headers.pop("Date")
            replies.append((status, dict(headers), body))
    return replies


@pytest.mark.parametrize("seed", range(12))
async def test_any_stream_of_requests_gets_the_answers_it_gets_without(hub: FakeHub, tmp_path: Path, seed: int) -> None:
    """Whole, in pieces, several at once, as bodies of others, behind empty lines: kept answers change nothing."""
    chance = random.Random(seed)
    image = hub.add_image(REPOSITORY, "latest", [os.urandom(500)])
    manifest = f"GET /v2/{REPOSITORY}/manifests/latest HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    config = (
        f"GET /v2/{REPOSITORY}/blobs/{json.loads(image.body)['config']['digest']} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    )
    part = config[:-2] + b"Range: bytes=1-3\r\n\r\n"
    unknown = b"GET /v2/library/none/manifests/x HTTP/1.1\r\nHost: a\r\n\r\n"
    wrapped = f"POST /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: {len(manifest)}\r\n\r\n".encode() + manifest
    chunked = b"POST /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
        len(config),
        config,
    )
    empty = b"\r\n\r\n" + manifest
    pool = [manifest, manifest, config, config, part, unknown, wrapped, chunked, empty]
    chosen = [chance.choice(pool) for _ in range(40)]
    whole = b"".join(chosen)
    if chance.random() < 0.5:
        cuts = sorted(chance.sample(range(1, len(whole)), 25))
    else:
        cuts, at = [], 0
        for each in chosen[:-1]:
            at += len(each)
            cuts.append(at)
    pieces = [whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    answers = []
    for memo in (True, False):
        options = {"server": ServerOptions(listen=ANY_PORT, memo=memo)}
        async with CacheRig(hub.url, tmp_path / f"{memo}", options=options) as cache:
            await cache.send("GET", f"/v2/{REPOSITORY}/manifests/latest")
            await cache.send("GET", config.split()[1].decode())
            answers.append(await stream(cache, pieces, len(chosen)))

    assert answers[0] == answers[1]
    assert len(answers[0]) == len(chosen)
