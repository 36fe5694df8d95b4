"""After whatever went wrong on a connection the next request gets its own answer, on that connection or another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from proxy.oci.errors import RegistryError
from proxy.oci.names import Digest, Tag
from proxy.upstream import failures
from proxy.upstream.client import Upstream
from tests.eventually import eventually
from tests.fake_hub import Answer, FakeHub, Image, at, spoilt
from tests.fake_hub.content import Bytes, Synthetic
from tests.upstream_rig import REPOSITORY, asking, fetched, started

BODY = b'{"schemaVersion": 2}'
LAYER = bytes(range(256)) * 4096
GET = at("manifest", method="GET")
HEAD = at("manifest", method="HEAD")
PLANTED = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nDocker-Content-Digest: sha256:" + b"e" * 64 + b"\r\n\r\nplanted"
"""What a desynchronised reader would take for the next answer."""

Trouble = Callable[[FakeHub, Upstream, Image], Awaitable[None]]


async def head(upstream: Upstream, reference: str = "latest") -> None:
    with suppress(RegistryError):
        await upstream.head_manifest(REPOSITORY, Tag(reference))


async def get(upstream: Upstream, image: Image) -> None:
    with suppress(RegistryError):
        await upstream.get_manifest(REPOSITORY, Digest.parse(image.digest))


async def blob(upstream: Upstream, image: Image) -> None:
    with suppress(RegistryError):
        await fetched(upstream, image.layers[0])


async def a_404_with_a_body(hub: FakeHub, upstream: Upstream, image: Image) -> None:
    with suppress(RegistryError):
        await upstream.get_manifest(REPOSITORY, Digest.of(b"missing"))
    await head(upstream, "missing")


async def errors_with_long_bodies(hub: FakeHub, upstream: Upstream, image: Image) -> None:
    for status in (400, 404, 500):
        hub.fail(GET, status, body=b"<p>trouble</p>" * 100_000, times=1)
        await get(upstream, image)


async def an_error_with_an_endless_body(hub: FakeHub, upstream: Upstream, image: Image) -> None:
    hub.replace(GET, lambda _: Answer(500, content=Synthetic(1 << 30, 0), chunked=True), times=1)
    await get(upstream, image)


async def a_challenge_in_mid_use(hub: FakeHub, upstream: Upstream, image: Image) -> None:
    hub.expire_tokens()
    await get(upstream, image)


async def a_body_that_is_left_half_read(hub: FakeHub, upstream: Upstream, image: Image) -> None:
    for direct in (False, True):
        hub.direct_blobs = direct
        async with upstream.open_blob(REPOSITORY, Digest.parse(image.layers[0])) as body:
            await body.read()
    hub.direct_blobs = False


async def a_manifest_that_is_too_long(hub: FakeHub, upstream: Upstream, image: Image) -> None:
    def flood(answer: Answer) -> None:
        answer.content, answer.chunked = Synthetic(1 << 30, 0), True

    hub.change(GET, flood, times=1)
    await get(upstream, image)


async def requests_that_are_cancelled(hub: FakeHub, upstream: Upstream, image: Image) -> None:
    for target, ask in ((HEAD, head(upstream)), (GET, get(upstream, image)), ("cdn", blob(upstream, image))):
        gate = hub.hang(target, times=1)
        async with left(ask):
            await eventually(lambda gate=gate: gate.waiting == 1)  # type: ignore[misc]
        gate.release()


async def a_body_that_is_cancelled(hub: FakeHub, upstream: Upstream, image: Image) -> None:
    for target, ask in ((GET, get(upstream, image)), (image.layers[0], blob(upstream, image))):
        gate = hub.hold(target, 10, times=1)
        async with left(ask):
            await eventually(lambda gate=gate: gate.waiting == 1)  # type: ignore[misc]
        gate.release()


@asynccontextmanager
async def left(ask: Awaitable[None]) -> AsyncIterator[None]:
    """A request that is cancelled at the end."""
    task = asyncio.ensure_future(ask)
    yield
    task.cancel()
    await asyncio.wait([task])


async def more_than_was_said(hub: FakeHub, upstream: Upstream, image: Image) -> None:
    hub.change(GET, spoilt.said_length(7), times=1)
    await get(upstream, image)
    hub.change("cdn", spoilt.said_length(1000), times=1)
    await blob(upstream, image)


async def an_answer_that_nobody_asked_for(hub: FakeHub, upstream: Upstream, image: Image) -> None:
    for target in (GET, HEAD):
        hub.change(target, spoilt.trailing(PLANTED), times=1)
        await get(upstream, image)
        await head(upstream)


async def a_body_after_head(hub: FakeHub, upstream: Upstream, image: Image) -> None:
    def with_body(answer: Answer) -> None:
        answer.raw = spoilt.head_of(answer) + PLANTED

    hub.change(HEAD, with_body, times=1)
    await head(upstream)


async def a_body_after_a_redirect(hub: FakeHub, upstream: Upstream, image: Image) -> None:
    def with_body(answer: Answer) -> None:
        answer.content = Bytes(b"moved " * 100_000)

    hub.change("blob", with_body, times=2)
    await blob(upstream, image)


async def headers_that_are_too_many(hub: FakeHub, upstream: Upstream, image: Image) -> None:
    hub.change("manifest", spoilt.huge_header(1 << 20), times=2)
    await head(upstream)
    await get(upstream, image)


async def no_http(hub: FakeHub, upstream: Upstream, image: Image) -> None:
    hub.garbage("any", times=2)
    await head(upstream)
    await get(upstream, image)


async def an_encoding(hub: FakeHub, upstream: Upstream, image: Image) -> None:
    hub.gzip_encode("any", times=2)
    await get(upstream, image)
    await blob(upstream, image)


async def connections_that_were_broken(hub: FakeHub, upstream: Upstream, image: Image) -> None:
    await hub.gone()
    await head(upstream)
    await hub.back()


TROUBLES: tuple[Trouble, ...] = (
    a_404_with_a_body,
    errors_with_long_bodies,
    an_error_with_an_endless_body,
    a_challenge_in_mid_use,
    a_body_that_is_left_half_read,
    a_manifest_that_is_too_long,
    requests_that_are_cancelled,
    a_body_that_is_cancelled,
    more_than_was_said,
    an_answer_that_nobody_asked_for,
    a_body_after_head,
    a_body_after_a_redirect,
    headers_that_are_too_many,
    no_http,
    an_encoding,
    connections_that_were_broken,
)


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.__name__.replace("_", " "))
async def test_the_next_answers_are_the_right_ones(trouble: Trouble) -> None:
    async with FakeHub() as hub, asking(hub, idle_timeout=5.0) as upstream:
        images = [hub.add_image(REPOSITORY.name, tag, [LAYER, tag.encode()]) for tag in ("latest", "other")]
        await assert_well(upstream, images)  # So that there are kept connections.

        await trouble(hub, upstream, images[0])

        for _ in range(3):
            await assert_well(upstream, images)
        assert hub.violations == []


async def test_an_answer_that_comes_too_late_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        images = [hub.add_image(REPOSITORY.name, tag, [LAYER, tag.encode()]) for tag in ("latest", "other")]
        await assert_well(upstream, images)
        monkeypatch.setattr(failures, "SMALL_SECONDS", 0.05)
        gate = hub.hang("manifest", times=2)
        await head(upstream, "other")
        await get(upstream, images[1])
        monkeypatch.undo()
        gate.release()

        await assert_well(upstream, images)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("said", [len(BODY), 3], ids=["after the body", "after what is said to be the body"])
async def test_what_is_sent_beyond_an_answer_is_not_taken_for_the_next(method: str, said: int) -> None:
    """The server keeps the connection open, and plants an answer on it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                asked = (await reader.readuntil(b"\r\n\r\n")).split(b" ")
                writer.write(answered(asked[0], said if b"/bad" in asked[1] else len(BODY)))
                if b"/bad" in asked[1]:
                    writer.write(PLANTED)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, started(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as upstream:
        for _ in range(3):
            ask = upstream.head_manifest if method == "HEAD" else upstream.get_manifest
            with suppress(RegistryError):
                await ask(REPOSITORY, Tag("bad"))
            assert (await upstream.head_manifest(REPOSITORY, Tag("good"))).digest == Digest.of(BODY)
            assert (await upstream.get_manifest(REPOSITORY, Tag("good"))).body == BODY


def answered(method: bytes, said: int) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {said}\r\nDocker-Content-Digest: {Digest.of(BODY)}\r\n\r\n"
    return head.encode() + (b"" if method == b"HEAD" else BODY)


async def assert_well(upstream: Upstream, images: list[Image]) -> None:
    """Answers that differ, one after the other and at once."""
    for image in images:
        digest = Digest.parse(image.digest)
        assert (await upstream.head_manifest(REPOSITORY, Tag(image.tag or ""))).digest == digest
        assert (await upstream.get_manifest(REPOSITORY, digest)).body == image.body
        assert await upstream.head_blob(REPOSITORY, Digest.parse(image.layers[0])) == len(LAYER)
    assert json.loads((await upstream.list(REPOSITORY, None, "")).body)["tags"] == ["latest", "other"]
    bodies = await asyncio.gather(*(fetched(upstream, digest) for image in images for digest in image.layers))
    assert bodies == [LAYER, b"latest", LAYER, b"other"]
