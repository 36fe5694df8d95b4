"""Upstreams that lie, flood or are none, seen by the door: the client's answer, the disk, and the next pull."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.oci.manifests import MAX_MANIFEST_BYTES, OCI_MANIFEST
from proxy.policy.breaker import MAX_SECONDS
from proxy.upstream import failures
from tests.blob_rig import KIB, MIB, nothing_left_open, read_until_broken, small_pauses
from tests.cache_rig import CacheRig, Reply
from tests.eventually import eventually
from tests.fake_hub import Answer, FakeHub, Image, at, spoilt
from tests.fake_hub.content import Synthetic

APP = "acme/app"
GIB = 1 << 30
GET = at("manifest", method="GET")
HEAD = at("manifest", method="HEAD")
BOUND = 25.0
"""What every answer comes within; none of these takes a second of it."""

Fault = Callable[[FakeHub], object]


@pytest.fixture(autouse=True)
def asks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    small_pauses(monkeypatch)
    monkeypatch.setattr("proxy.upstream.retries.PAUSE_SECONDS", 0.001)
    started = time.monotonic()
    yield
    assert time.monotonic() - started < BOUND


@pytest.fixture
def image(hub: FakeHub) -> Image:
    return hub.add_image(APP, "latest", [bytes(range(256)) * 4 * KIB])


def assert_unavailable(reply: Reply) -> None:
    assert reply.status == 503
    assert json.loads(reply.body)["errors"][0]["code"] == "UNAVAILABLE"


async def assert_next_pull_succeeds(hub: FakeHub, cache: CacheRig, image: Image) -> None:
    """The whole image, once nothing is wrong any more; nothing is left over and nothing was sent to the wrong place."""
    hub.heal()
    cache.clock.advance(MAX_SECONDS + 60)
    assert (await cache.get_manifest(APP, "latest")).body == image.body
    for digest in (image.config, *image.layers):
        reply = await cache.get_blob(APP, digest)
        assert (reply.status, len(reply.body)) == (200, hub.content_of(digest).size)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == ({image.digest, image.config, *image.layers}, {})
    await nothing_left_open(cache)
    assert hub.violations == []


def flood(answer: Answer) -> None:
    answer.content, answer.window, answer.chunked = Synthetic(GIB, 0), None, True


def long(answer: Answer) -> None:
    answer.content, answer.window = Synthetic(GIB, 0), None


MANIFESTS: dict[str, Fault] = {
    "a header of 1 MB": lambda hub: hub.change(GET, spoilt.huge_header(MIB)),
    "a header of 1 MB, to HEAD": lambda hub: hub.change(HEAD, spoilt.huge_header(MIB)),
    "20,000 headers": lambda hub: hub.change(GET, spoilt.many_headers(20_000)),
    "20,000 headers, to HEAD": lambda hub: hub.change(HEAD, spoilt.many_headers(20_000)),
    "1 GB": lambda hub: hub.change(GET, long),
    "1 GB in chunks": lambda hub: hub.change(GET, flood),
    "a length that never ends": lambda hub: hub.change(GET, spoilt.said_length(10**18)),
    "a length beyond all numbers": lambda hub: hub.change(GET, spoilt.said_length("9" * 400)),
    "a length that is short": lambda hub: hub.change(GET, spoilt.said_length(7)),
    "a length that is long": lambda hub: hub.change(GET, spoilt.said_length(70_000)),
    "a length that is no number": lambda hub: hub.change(GET, spoilt.said_length("ten")),
    "a length below zero": lambda hub: hub.change(GET, spoilt.said_length(-1)),
    "gzip": lambda hub: hub.gzip_encode(GET),
    "another manifest": lambda hub: hub.garbage(GET, b'{"schemaVersion": 2}'),
    "no JSON": lambda hub: hub.garbage(GET, b"<html>Please log in</html>"),
    "no HTTP": lambda hub: hub.garbage("manifest"),
    "a redirect loop": lambda hub: hub.redirect_loop("manifest"),
    "a redirect to nowhere": lambda hub: hub.redirect_to("manifest", "gopher://127.0.0.1/"),
    "a redirect to a closed port": lambda hub: hub.redirect_to("manifest", "http://127.0.0.1:1/"),
    "a token of 1 GB": lambda hub: hub.change("token", flood),
    "a token of 1 MB of headers": lambda hub: hub.change("token", spoilt.huge_header(MIB)),
    "a token that is gzip": lambda hub: hub.gzip_encode("token"),
}


@pytest.mark.parametrize("fault", MANIFESTS)
async def test_a_manifest_that_cannot_be_had_is_503_and_nothing_is_kept(
    hub: FakeHub, cache: CacheRig, image: Image, fault: str
) -> None:
    MANIFESTS[fault](hub)

    reply = await cache.get_manifest(APP, "latest")

    assert_unavailable(reply)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {})
    assert sum(request.sent for request in hub.requests) < 4 * MAX_MANIFEST_BYTES, "not read beyond the limit"
    await assert_next_pull_succeeds(hub, cache, image)


@pytest.mark.parametrize("fault", MANIFESTS)
async def test_what_is_held_is_served_stale_meanwhile(hub: FakeHub, cache: CacheRig, image: Image, fault: str) -> None:
    await cache.get_manifest(APP, "latest")
    hub.add_image(APP, "latest", [b"newer"])
    cache.clock.advance(300)
    hub.expire_tokens()
    MANIFESTS[fault](hub)

    reply = await cache.get_manifest(APP, "latest")

    assert (reply.status, reply.body) == (200, image.body)
    assert reply.cache_status.startswith("pullthrough; fwd=stale")


@pytest.mark.parametrize("size", [10**18, 2**63, 2**64, 10**400, -1, 1e300, "7"], ids=lambda size: str(size)[:25])
@pytest.mark.parametrize("media_type", ["a/\ud800", "a/b\r\nX: y", "x" * 10_000], ids=["surrogate", "lines", "long"])
async def test_a_manifest_that_names_nonsense_is_passed_on_and_spoils_nothing(
    hub: FakeHub, cache: CacheRig, image: Image, size: object, media_type: str
) -> None:
    """Whoever may push to a registry writes what stands in its manifests."""
    layer = {"digest": image.layers[0], "size": size, "mediaType": media_type}
    body = json.dumps({"schemaVersion": 2, "mediaType": media_type, "layers": [layer]}).encode()
    hub.add_manifest(APP, body, OCI_MANIFEST, "hostile")

    first = await cache.get_manifest(APP, "hostile")
    blob = await cache.get_blob(APP, image.layers[0])
    await cache.restart()  # What was to be written to the index is written.
    hub.reset_counts()
    second = await cache.get_manifest(APP, "hostile")

    assert [(reply.status, reply.body) for reply in (first, second)] == [(200, body)] * 2
    assert {reply.headers["Content-Type"] for reply in (first, second)} == {OCI_MANIFEST}
    assert (blob.status, len(blob.body)) == (200, MIB)
    assert hub.requests == [], "the index knows it"


@pytest.mark.parametrize("said", ["a/\udcff", "a", "x/" + "y" * 5000, ""], ids=["surrogate", "none", "long", "empty"])
async def test_a_type_that_is_none_is_not_passed_on(hub: FakeHub, cache: CacheRig, said: str) -> None:
    """Nor is one of the manifest's own."""
    body = json.dumps({"schemaVersion": 2, "mediaType": "a/b\r\nX: y"}).encode()
    hub.add_manifest(APP, body, said.encode("utf-8", "surrogateescape").decode("latin-1"), "hostile")

    reply = await cache.get_manifest(APP, "hostile")

    assert (reply.status, reply.body, "X" in reply.headers) == (200, body, False)
    assert reply.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("size", [10**18, 2**63 - 1, 2**63, 10**19 - 1, 2**64])
async def test_a_length_that_nothing_can_hold_is_none(hub: FakeHub, cache: CacheRig, image: Image, size: int) -> None:
    def say(answer: Answer) -> None:
        answer.headers["content-length"] = str(size)
        answer.raw = spoilt.head_of(answer)

    hub.redirect_heads = False
    hub.change(HEAD, say)
    hub.change(at("blob", method="HEAD"), say)

    tag = await cache.head_manifest(APP, "latest")
    size_of = await cache.head_blob(APP, image.layers[0])
    await cache.restart()

    for reply, length in ((tag, len(image.body)), (size_of, MIB)):
        told = reply.headers.get("Content-Length", "not told")
        assert reply.status == 503 or (reply.status, told) in ((200, str(length)), (200, "not told"))
    await assert_next_pull_succeeds(hub, cache, image)


BLOBS: dict[str, Fault] = {
    "a header of 1 MB": lambda hub: hub.change("cdn", spoilt.huge_header(MIB)),
    "a header of 1 MB, of the registry": lambda hub: hub.change("blob", spoilt.huge_header(MIB)),
    "20,000 headers": lambda hub: hub.change("cdn", spoilt.many_headers(20_000)),
    "a length beyond all numbers": lambda hub: hub.change("cdn", spoilt.said_length("9" * 400)),
    "a length that is no number": lambda hub: hub.change("cdn", spoilt.said_length("ten")),
    "a length below zero": lambda hub: hub.change("cdn", spoilt.said_length(-1)),
    "gzip": lambda hub: hub.gzip_encode("cdn"),
    "no HTTP": lambda hub: hub.garbage("cdn"),
    "a redirect loop": lambda hub: hub.redirect_loop("cdn"),
    "a redirect to nowhere": lambda hub: hub.redirect_to("blob", "gopher://127.0.0.1/"),
}


@pytest.mark.parametrize("fault", BLOBS)
async def test_a_blob_that_cannot_be_had_is_503_and_nothing_is_kept(
    hub: FakeHub, cache: CacheRig, image: Image, fault: str
) -> None:
    await cache.get_manifest(APP, "latest")
    BLOBS[fault](hub)

    reply = await cache.get_blob(APP, image.layers[0])

    assert_unavailable(reply)
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == ({image.digest}, {})
    await assert_next_pull_succeeds(hub, cache, image)


@pytest.mark.parametrize(
    ("said", "known"),
    [*((said, known) for said in (7, 70 * KIB, 10 * MIB) for known in (True, False)), (10**18, False), (2**63, False)],
)
async def test_a_blob_of_another_length_than_is_said_never_arrives_as_whole(
    hub: FakeHub, cache: CacheRig, image: Image, said: int, known: bool
) -> None:
    """Without its manifest nobody but upstream tells the size of a blob."""
    if known:
        await cache.get_manifest(APP, "latest")
    hub.change("cdn", spoilt.said_length(said))

    async with cache.open(f"/v2/{APP}/blobs/{image.layers[0]}") as response:
        announced = response.headers["Content-Length"]
        assert response.status in (200, 503)
    if response.status == 200:
        received = await read_until_broken(cache, f"/v2/{APP}/blobs/{image.layers[0]}")
        assert len(received) < int(announced)
    assert image.layers[0] not in cache.blobs_on_disk()
    await assert_next_pull_succeeds(hub, cache, image)


@pytest.mark.parametrize("target", [HEAD, GET, "token", "blob", "cdn"], ids=["HEAD", "GET", "token", "blob", "cdn"])
async def test_headers_that_drip_are_waited_for_within_the_bound(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """The idle time-out never sees them."""
    layers = [bytes(range(256)) * 4 * KIB]
    image = hub.add_image(APP, "latest", layers)
    async with CacheRig(hub.url, tmp_path / "cache", idle_timeout=0.3) as cache:
        if target in ("blob", "cdn"):
            await cache.get_manifest(APP, "latest")
        monkeypatch.setattr(failures, "SMALL_SECONDS", 0.3)
        hub.change(target, spoilt.slow_headers(0.05))

        if target in ("blob", "cdn"):
            reply = await cache.get_blob(APP, image.layers[0])
        else:
            reply = await cache.get_manifest(APP, "latest")

        assert_unavailable(reply)
        monkeypatch.undo()
        small_pauses(monkeypatch)
        hub.heal()
        cache.clock.advance(MAX_SECONDS)

        async def is_well() -> bool:  # An exchange of tokens may take its bound longer than who asked for it.
            return (await cache.get_manifest(APP, "latest")).status == 200

        await eventually(is_well)
        await assert_next_pull_succeeds(hub, cache, image)


async def test_a_name_that_does_not_resolve_is_503(tmp_path: Path) -> None:
    async with CacheRig("https://" + ".".join(["a" * 60] * 5), tmp_path / "cache") as cache:
        reply = await cache.get_manifest(APP, "latest")
        blob = await cache.get_blob(APP, "sha256:" + "0" * 64)

    assert_unavailable(reply)
    assert_unavailable(blob)
    assert "does not resolve" in json.loads(reply.body)["errors"][0]["message"]
    assert (cache.blobs_on_disk(), cache.partials_on_disk()) == (set(), {})


async def test_tls_where_there_is_none_is_503(hub: FakeHub, tmp_path: Path) -> None:
    async with CacheRig(hub.url.replace("http:", "https:"), tmp_path / "cache") as cache:
        assert_unavailable(await cache.get_manifest(APP, "latest"))


async def test_a_realm_of_another_domain_gets_nothing_and_the_client_503(
    hub: FakeHub, cache: CacheRig, image: Image
) -> None:
    realm, hub.realm = hub.realm, f"{hub.stranger_url}/token"

    reply = await cache.get_manifest(APP, "latest")

    assert_unavailable(reply)
    assert "not trusted" in json.loads(reply.body)["errors"][0]["message"]
    assert (hub.token_count(), hub.count("GET", "stranger")) == (0, 0)
    hub.realm = realm
    await assert_next_pull_succeeds(hub, cache, image)
