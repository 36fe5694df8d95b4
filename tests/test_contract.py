"""The response contract that satisfies every client (PROTOCOL 10), line by line, by the door."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.cache_rig import CacheRig, Reply
from tests.fake_hub import FakeHub, Image, at

REPOSITORY = "library/alpine"
BLOB = bytes(range(256)) * 1024  # larger than what is answered from memory
SMALL = b"small" * 100
MANIFESTS, BLOBS = f"/v2/{REPOSITORY}/manifests", f"/v2/{REPOSITORY}/blobs"
NEVER = {"WWW-Authenticate", "Content-Encoding", "Transfer-Encoding", "Location", "Set-Cookie", "Last-Modified"}
GO_ACCEPT_ENCODING = {"Accept-Encoding": "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"}


@pytest.fixture
def image(hub: FakeHub) -> Image:
    return hub.add_image(REPOSITORY, "latest", [BLOB, SMALL])


@pytest.fixture(autouse=True)
async def every_answer_keeps_the_rules_for_all(cache: CacheRig, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The first line of the contract, on whatever a test here asks for."""
    send = cache.send

    async def checked(method: str, path: str, headers: Any = None) -> Reply:
        reply = await send(method, path, headers)
        assert reply.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
        assert NEVER.isdisjoint(reply.headers)
        assert ("ns=" in path) == ("OCI-Namespace" in reply.headers)
        if reply.status != 304:
            assert "Content-Length" in reply.headers
            assert ";" not in reply.headers["Content-Type"]
        if method == "HEAD":
            assert reply.body == b""
        elif reply.status != 304:
            assert len(reply.body) == int(reply.headers["Content-Length"])
        return reply

    monkeypatch.setattr(cache, "send", checked)
    yield


def error_of(reply: Reply) -> tuple[int, str]:
    """Status and code of an error told in the specification's JSON."""
    assert reply.headers["Content-Type"] == "application/json"
    (error,) = json.loads(reply.body)["errors"]
    assert error["message"]
    return reply.status, error["code"]


def named(headers: Any) -> dict[str, str]:
    """What names the content, the same for GET and HEAD."""
    names = ("Content-Type", "Content-Length", "Docker-Content-Digest", "ETag", "Cache-Control")
    return {name: headers[name] for name in names if name in headers}


@pytest.mark.parametrize("path", ["/v2/", "/v2", "/docker.io/v2/", "/docker.io/v2", "/v2/?ns=docker.io"])
async def test_the_base_is_200_json(cache: CacheRig, hub: FakeHub, path: str) -> None:
    got, head = await cache.send("GET", path), await cache.send("HEAD", path)
    assert (got.status, got.headers["Content-Type"], got.body) == (200, "application/json", b"{}")
    assert (head.status, head.headers["Content-Length"]) == (200, "2")
    assert hub.requests == []


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
async def test_a_manifest_by_tag(cache: CacheRig, image: Image, warm: bool) -> None:
    if warm:
        await cache.send("GET", f"{MANIFESTS}/latest")

    head = await cache.send("HEAD", f"{MANIFESTS}/latest", GO_ACCEPT_ENCODING)
    got = await cache.send("GET", f"{MANIFESTS}/latest", GO_ACCEPT_ENCODING | {"Range": "bytes=0-"})

    assert (head.status, got.status, got.body) == (200, 200, image.body)
    expected = {
        "Content-Type": image.media_type,
        "Content-Length": str(len(image.body)),
        "Docker-Content-Digest": image.digest,
        "ETag": f'"{image.digest}"',
        "Cache-Control": "no-cache",
    }
    assert named(head.headers) == named(got.headers) == expected
    assert got.cache_status == ("pullthrough; hit" if warm else "pullthrough; fwd=miss; stored")


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
async def test_a_manifest_by_digest_is_immutable(cache: CacheRig, image: Image, warm: bool) -> None:
    if warm:
        await cache.send("GET", f"{MANIFESTS}/{image.digest}")

    head = await cache.send("HEAD", f"{MANIFESTS}/{image.digest}", GO_ACCEPT_ENCODING)
    got = await cache.send("GET", f"{MANIFESTS}/{image.digest}", GO_ACCEPT_ENCODING)

    assert (head.status, got.status, got.body) == (200, 200, image.body)
    assert named(head.headers) == named(got.headers)
    assert got.headers["Content-Type"] == image.media_type
    assert "max-age=31536000" in got.headers["Cache-Control"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("quoted", ['"{}"', "{}", 'W/"{}"', '"other", "{}"', "*"])
async def test_a_manifest_that_the_client_has_is_304(cache: CacheRig, image: Image, method: str, quoted: str) -> None:
    for reference in ("latest", image.digest):
        reply = await cache.send(method, f"{MANIFESTS}/{reference}", {"If-None-Match": quoted.format(image.digest)})
        assert (reply.status, reply.body, reply.headers["ETag"]) == (304, b"", f'"{image.digest}"')
        assert not {"Content-Length", "Content-Type"} & set(reply.headers)
    other = await cache.send("GET", f"{MANIFESTS}/latest", {"If-None-Match": '"sha256:other"'})
    assert other.status == 200


async def test_an_index_and_oci_types_keep_their_type(cache: CacheRig, hub: FakeHub) -> None:
    index = hub.add_index(REPOSITORY, "all", oci=True)

    reply = await cache.send("GET", f"{MANIFESTS}/all")

    assert (reply.headers["Content-Type"], reply.body) == (index.media_type, index.body)


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("number", [0, 1], ids=["large", "small"])
async def test_a_blob(cache: CacheRig, hub: FakeHub, image: Image, number: int, warm: bool) -> None:
    digest, content = image.layers[number], (BLOB, SMALL)[number]
    if warm:
        await cache.send("GET", f"{BLOBS}/{digest}")

    head = await cache.send("HEAD", f"{BLOBS}/{digest}", GO_ACCEPT_ENCODING)
    fetched = hub.cdn_count(digest)
    got = await cache.send("GET", f"{BLOBS}/{digest}", GO_ACCEPT_ENCODING)

    assert (head.status, got.status, got.body) == (200, 200, content)
    assert fetched == (1 if warm else 0)
    expected = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(content)),
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Cache-Control": "public, max-age=31536000, immutable",
    }
    assert named(head.headers) == named(got.headers) == expected
    assert head.headers["Accept-Ranges"] == got.headers["Accept-Ranges"] == "bytes"
    assert got.cache_status == ("pullthrough; hit" if warm else "pullthrough; fwd=miss; stored")


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("number", [0, 1], ids=["large", "small"])
@pytest.mark.parametrize("asked", ["a-", "0-", "a-b", "a-beyond", "-n", "-beyond", "last"])
async def test_a_single_range_is_206(cache: CacheRig, image: Image, number: int, warm: bool, asked: str) -> None:
    digest, content = image.layers[number], (BLOB, SMALL)[number]
    size = len(content)
    header, start, stop = {
        "a-": ("100-", 100, size),
        "0-": ("0-", 0, size),
        "a-b": ("100-199", 100, 200),
        "a-beyond": (f"100-{size + 5}", 100, size),
        "-n": ("-10", size - 10, size),
        "-beyond": (f"-{size + 5}", 0, size),
        "last": (f"{size - 1}-", size - 1, size),
    }[asked]
    if warm:
        await cache.send("GET", f"{BLOBS}/{digest}")

    reply = await cache.send("GET", f"{BLOBS}/{digest}", {"Range": f"bytes={header}"})

    assert (reply.status, reply.body) == (206, content[start:stop])
    assert reply.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{size}"
    assert reply.headers["Content-Length"] == str(stop - start)
    assert reply.headers["Docker-Content-Digest"] == digest


@pytest.mark.parametrize("number", [0, 1], ids=["large", "small"])
@pytest.mark.parametrize("beyond", [0, 1, 9_000_000_000_000_000_000])
async def test_a_start_beyond_the_end_is_416(cache: CacheRig, image: Image, number: int, beyond: int) -> None:
    digest, content = image.layers[number], (BLOB, SMALL)[number]

    reply = await cache.send("GET", f"{BLOBS}/{digest}", {"Range": f"bytes={len(content) + beyond}-"})

    assert error_of(reply) == (416, "RANGE_INVALID")
    assert reply.headers["Content-Range"] == f"bytes */{len(content)}"


@pytest.mark.parametrize(
    "header",
    [
        "bytes=0-99,500-700",
        "bytes=500-100",
        "bytes=-0",
        "bytes=-",
        "bytes=a-b",
        "bytes=--5",
        "items=0-5",
        "bytes 0-5",
        "",
        "bytes=99999999999999999999999999-",
        "bytes=0x10-",
        "bytes=1" + "0" * 4000 + "-",
    ],
)
@pytest.mark.parametrize("number", [0, 1], ids=["large", "small"])
async def test_a_range_of_any_other_kind_is_200(cache: CacheRig, image: Image, number: int, header: str) -> None:
    reply = await cache.send("GET", f"{BLOBS}/{image.layers[number]}", {"Range": header})
    assert (reply.status, reply.body) == (200, (BLOB, SMALL)[number])
    assert "Content-Range" not in reply.headers


@pytest.mark.parametrize(
    ("condition", "status"), [('"{}"', 206), ("{}", 206), ('"other"', 200), ("Wed, 21 Oct 2015 07:28:00 GMT", 200)]
)
async def test_a_range_holds_only_for_the_content_that_if_range_names(
    cache: CacheRig, image: Image, condition: str, status: int
) -> None:
    digest = image.layers[0]
    headers = {"Range": "bytes=5-", "If-Range": condition.format(digest)}
    assert (await cache.send("GET", f"{BLOBS}/{digest}", headers)).status == status


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_blob_that_the_client_has_is_304(cache: CacheRig, image: Image, method: str) -> None:
    digest = image.layers[0]
    await cache.send("GET", f"{BLOBS}/{digest}")
    reply = await cache.send(method, f"{BLOBS}/{digest}", {"If-None-Match": f'"{digest}"'})
    assert (reply.status, reply.body) == (304, b"")
    assert not {"Content-Length", "Content-Type"} & set(reply.headers)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_upstream_lacks_is_404(cache: CacheRig, image: Image, method: str) -> None:
    nothing = "sha256:" + "0" * 64
    for path, code in (
        (f"{MANIFESTS}/none", "MANIFEST_UNKNOWN"),
        (f"{MANIFESTS}/{nothing}", "MANIFEST_UNKNOWN"),
        (f"{BLOBS}/{nothing}", "BLOB_UNKNOWN"),
    ):
        reply = await cache.send(method, path)
        assert reply.status == 404
        if method == "GET":
            assert error_of(reply) == (404, code)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_no_access_is_403_without_a_challenge(cache: CacheRig, hub: FakeHub, method: str) -> None:
    image = hub.add_image("secret/app", "latest")
    hub.make_private("secret/app")
    for path in ("/v2/secret/app/manifests/latest", f"/v2/secret/app/blobs/{image.layers[0]}"):
        reply = await cache.send(method, path)
        assert reply.status == 403
        if method == "GET":
            assert error_of(reply) == (403, "DENIED")
            assert b"requested access to the resource is denied" in reply.body


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_upstream_that_is_limited_is_429_with_a_time(cache: CacheRig, hub: FakeHub, method: str) -> None:
    hub.add_image(REPOSITORY, "latest")
    hub.abuse_limit(retry_after=17)

    reply = await cache.send(method, f"{MANIFESTS}/latest")

    assert reply.status == 429
    assert 17 <= int(reply.headers["Retry-After"]) <= 22  # The gate opens a little late, at random.
    if method == "GET":
        assert error_of(reply) == (429, "TOOMANYREQUESTS")


async def test_what_is_held_is_answered_stale_with_a_warning_when_upstream_is_limited(
    cache: CacheRig, hub: FakeHub, image: Image
) -> None:
    await cache.send("GET", f"{MANIFESTS}/latest")
    cache.clock.advance(400)
    hub.fail(at("manifest"), 429, retry_after=60)

    for method in ("GET", "HEAD"):
        reply = await cache.send(method, f"{MANIFESTS}/latest")
        assert (reply.status, reply.headers["Docker-Content-Digest"]) == (200, image.digest)
        assert reply.headers["Warning"] == '299 - "served stale: the upstream registry\'s rate limit is reached"'
        assert (reply.headers["Age"], reply.cache_status) == ("400", "pullthrough; fwd=stale; detail=limited")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_an_upstream_that_is_down_is_503(cache: CacheRig, hub: FakeHub, method: str) -> None:
    hub.add_image(REPOSITORY, "latest")
    await hub.gone()

    reply = await cache.send(method, f"{MANIFESTS}/latest")

    assert reply.status == 503
    if method == "GET":
        assert error_of(reply) == (503, "UNAVAILABLE")


@pytest.mark.parametrize(
    "path",
    [
        f"{MANIFESTS}/latest",
        f"{MANIFESTS}/none",
        f"{BLOBS}/sha256:bad",
        f"/docker.io{MANIFESTS}/latest",
        f"/v2/docker.io/{REPOSITORY}/manifests/latest",
        "/v2/UPPER/manifests/x",
        "/v2/_catalog",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_the_namespace_is_said_back_on_every_answer(
    cache: CacheRig, image: Image, method: str, path: str
) -> None:
    with_namespace = await cache.send(method, f"{path}?ns=docker.io")
    without = await cache.send(method, path)
    assert with_namespace.headers["OCI-Namespace"] == "docker.io"
    assert with_namespace.status == without.status
