"""What clients of a process beside the cache get: what the cache itself would give them. Nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from proxy.config import Share
from proxy.workers.asking import Asking
from proxy.workers.messages import Answer
from tests.blob_rig import (
    KIB,
    MIB,
    add_layer,
    admit,
    assert_never_whole,
    assert_next_pull_succeeds,
    no_fills,
    partial_has,
    read_until_broken,
    readers,
    small_pauses,
)
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub, at
from tests.house_rig import purged
from tests.leftovers import nothing_left_over
from tests.raw_http import RawClient, raw_client
from tests.room_rig import limit

REPOSITORY = "library/app"
MANIFEST = f"/v2/{REPOSITORY}/manifests/latest"


@pytest.fixture(autouse=True)
def asks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pauses(monkeypatch)


@pytest.fixture
async def cache(hub: FakeHub, tmp_path: Path) -> AsyncIterator[CacheRig]:
    """A cache whose clients are served beside it."""
    async with CacheRig(hub.url, tmp_path / "cache", beside=True) as running:
        yield running


@pytest.fixture
async def client(cache: CacheRig) -> AsyncIterator[RawClient]:
    async with raw_client(cache.url) as client:
        yield client


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The requests that the host was asked."""
    heads: list[bytes] = []
    answer = Asking.answer

    async def noting(self: Asking) -> Answer:
        heads.append(self._ask.head)
        return await answer(self)

    monkeypatch.setattr(Asking, "answer", noting)
    return heads


# Bodies


@pytest.mark.parametrize("size", [0, 1, 64 * KIB, 64 * KIB + 1, 3 * MIB])
@pytest.mark.parametrize("is_stored", [True, False])
async def test_every_size_arrives_whole(hub: FakeHub, cache: CacheRig, size: int, is_stored: bool) -> None:
    if not is_stored:
        await limit(cache, max_size=Share(1))
    layer = add_layer(hub, size)
    for _ in range(2):
        assert (await cache.head_blob(REPOSITORY, layer.digest)).headers["Content-Length"] == str(size)
        reply = await cache.get_blob(REPOSITORY, layer.digest)
        assert (reply.status, reply.body) == (200, layer.content)
    part = await cache.get_blob(REPOSITORY, layer.digest, Range="bytes=-1")
    assert (part.status, part.body) == (206 if size else 200, layer.content[-1:])


async def test_a_large_manifest_comes_whole(hub: FakeHub, cache: CacheRig) -> None:
    body = b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}'
    digest = hub.add_manifest(
        REPOSITORY, body + b" " * (300 * KIB), "application/vnd.oci.image.index.v1+json", tag="latest"
    )
    for reference in ("latest", digest):
        reply = await cache.get_manifest(REPOSITORY, reference)
        assert (reply.status, reply.body) == (200, body + b" " * (300 * KIB))


async def test_wrong_bytes_never_arrive_whole(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub, 2 * MIB)
    await admit(hub, cache, layer)
    hub.corrupt(layer.digest, layer.size - 1)
    assert_never_whole(await read_until_broken(cache, layer.path), layer)
    await assert_next_pull_succeeds(hub, cache, layer)


async def test_a_part_of_what_is_being_fetched_is_sent_as_soon_as_it_is_there(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub, 2 * MIB)
    hub.hold(layer.digest, MIB)
    whole = asyncio.ensure_future(cache.get_blob(REPOSITORY, layer.digest))
    await partial_has(cache, layer.digest, MIB)
    async with cache.open(layer.path, {"Range": f"bytes={KIB}-{MIB - 1}"}) as response:
        assert (response.status, await response.read()) == (206, layer.content[KIB:MIB])
    hub.release()
    assert (await whole).body == layer.content


async def test_a_reader_that_leaves_changes_nothing_for_others(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub, 2 * MIB)
    hub.hold(layer.digest, MIB)
    whole = asyncio.ensure_future(cache.get_blob(REPOSITORY, layer.digest))
    await partial_has(cache, layer.digest, MIB)
    async with raw_client(cache.url) as leaving:
        leaving.ask("GET", layer.path)
        await leaving.head()
        await leaving.read(1000)
        await readers(cache, layer.digest, 2)
    await readers(cache, layer.digest, 1)
    hub.release()
    assert (await whole).body == layer.content
    assert hub.bytes_sent(layer.digest) == layer.size


async def test_who_leaves_before_the_answer_is_not_worked_for(hub: FakeHub, cache: CacheRig, client: RawClient) -> None:
    image = hub.add_image(REPOSITORY, "latest")
    hub.hang(at("manifest", reference=image.digest))
    client.ask("GET", MANIFEST)
    await hub.wait_held()
    client.leave()
    await eventually(lambda: '"client_left": true' in cache.log.getvalue(), label="the host knows")
    hub.release()


async def test_nothing_is_left_over(hub: FakeHub, cache: CacheRig) -> None:
    large, small = add_layer(hub, MIB), add_layer(hub, 100, seed=1)
    hub.add_image(REPOSITORY, "latest")

    async def use() -> None:
        for path in ("/v2/", MANIFEST, large.path, small.path, "/v2/none/manifests/x"):
            await cache.send("GET", path)
        with pytest.raises(aiohttp.ClientError):
            async with cache.open(large.path) as response:
                response.close()
                await response.read()

    await use()
    async with nothing_left_over():
        for _ in range(10):
            await use()
        await no_fills(cache)


# Requests


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /v2/ HTTP/1.1\r\nHost: cache\r\n\r\n", 200),
        (b"HEAD /v2/ HTTP/1.1\r\nHost: cache\r\n\r\n", 200),
        (b"GET /v2/ HTTP/1.1\r\nHost: cache\r\nConnection: close\r\n\r\n", 200),
        (b"GET /v2/ HTTP/1.0\r\n\r\n", 200),
        (b"GET /v2/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200),
        (b"GET /v2/ HTTP/2.0\r\n\r\n", 200),
        (b"GET /v2/ HTTP/0.9\r\n\r\n", 200),
        (b"GET /v2/ HTTP/1.1\r\nHost: cache\r\nX: \xff\xfe\r\n\r\n", 200),
        (b"GET /v2/ HTTP/1.1\r\nHost: cache\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", 200),
        (b"GET /v2/ HTTP/1.1\r\nHost: cache\r\nContent-Length: 2\r\n\r\n12", 200),
        (b"GET http://cache/v2/ HTTP/1.1\r\nHost: cache\r\n\r\n", 404),
        (b"GET /v2/a?n=%c3%a9 HTTP/1.1\r\nHost: cache\r\n\r\n", 404),
        (b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: cache\r\nContent-Length: 5\r\n\r\n12345", 405),
        (b"PUT /v2/a/manifests/x HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 405),
        (b"GET /v2/\xff/manifests/x HTTP/1.1\r\nHost: cache\r\n\r\n", 400),
    ],
)
@pytest.mark.parametrize("way", ["alone", "in pieces", "behind another"])
async def test_requests_of_all_sorts_are_answered_as_by_the_cache_itself(
    hub: FakeHub, cache: CacheRig, request_: bytes, status: int, way: str
) -> None:
    found = await spoken(cache.url, request_, way)

    assert found == await spoken(cache.app.client_url, request_, way)
    assert f" {status} ".encode() in found


async def spoken(url: str, request: bytes, way: str) -> bytes:
    """All that is answered to it, but for the moment."""
    async with raw_client(url) as client:
        if way == "behind another":
            client.send(b"GET /v2/ HTTP/1.1\r\nHost: cache\r\n\r\n" + request)
        elif way == "in pieces":
            client.send(request[:12])
            async with raw_client(url) as other:  # When that is answered, the first piece has been read.
                other.ask("GET", "/v2/")
                await other.reply()
            client.send(request[12:])
        else:
            client.send(request)
        with contextlib.suppress(OSError):  # It has ended the connection by itself.
            client.half_close()
        lines = (await client.rest()).split(b"\r\n")
        return b"\r\n".join(line for line in lines if not line.startswith(b"Date: "))


# Answers that a server gives again


@pytest.fixture
async def digest(hub: FakeHub, cache: CacheRig, client: RawClient, asked: list[bytes]) -> str:
    """Of an image whose tag and digest the server has just answered by itself."""
    image = hub.add_image(REPOSITORY, "latest")
    for path in (MANIFEST, f"/v2/{REPOSITORY}/manifests/{image.digest}"):
        for _ in range(3):
            client.ask("GET", path)
            assert (await client.reply()).body == image.body
    assert len(asked) == 3, "the first answer by tag was a miss, and each hit is asked for once"
    asked.clear()
    return image.digest


async def test_what_was_purged_is_not_given_again(
    cache: CacheRig, hub: FakeHub, client: RawClient, digest: str, asked: list[bytes]
) -> None:
    await purged(cache, image=f"{REPOSITORY}@{digest}")
    client.ask("GET", f"/v2/{REPOSITORY}/manifests/{digest}")
    assert (await client.reply()).headers["Cache-Status"] == "pullthrough; fwd=miss; stored"
    assert len(asked) == 1


async def test_where_a_tag_was_is_not_given_again(
    cache: CacheRig, hub: FakeHub, client: RawClient, digest: str, asked: list[bytes]
) -> None:
    moved = hub.add_image(REPOSITORY, "latest", [b"another"])
    client.ask("GET", MANIFEST)
    assert (await client.reply()).headers["Docker-Content-Digest"] == digest, "while it is fresh"
    cache.clock.advance(300.5)
    assert (await cache.get_manifest(REPOSITORY, "latest")).body == moved.body
    cache.clock.advance(-0.5)
    client.ask("GET", MANIFEST)
    assert (await client.reply()).body == moved.body


async def test_what_other_settings_forbid_is_not_given_again(
    cache: CacheRig, hub: FakeHub, client: RawClient, digest: str, asked: list[bytes]
) -> None:
    """Also before the server has heard of them."""
    hub.repositories[REPOSITORY].private = True
    await cache.app.reload(replace(cache.app.config, freshness=replace(cache.app.config.freshness, tags=0.0)))
    client.ask("GET", MANIFEST)
    await client.reply()
    assert len(asked) == 1


async def test_what_it_gave_again_is_counted_before_figures_are_read(
    cache: CacheRig, client: RawClient, digest: str, asked: list[bytes]
) -> None:
    before = await cache.metric("pullthrough_requests_total", kind="manifest", code="200")
    for _ in range(20):
        client.ask("GET", f"/v2/{REPOSITORY}/manifests/{digest}")
        await client.reply()
    assert asked == []
    assert before == 6
    assert await cache.metric("pullthrough_requests_total", kind="manifest", code="200") == 26
    assert cache.app.quotas.traffic.tallies()["docker.io"].answers == 26
    await cache.stop()
    assert cache.log.getvalue().count(f"{REPOSITORY}@{digest}") + cache.log.getvalue().count(f":{digest[7:]}") >= 23
    await cache.start()
