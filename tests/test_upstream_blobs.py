"""HEAD and GET of blobs (PROTOCOL 3, 8.10)."""

from __future__ import annotations

import asyncio

import pytest
from multidict import CIMultiDict

from proxy.oci.errors import BlobUnknown, Denied, TooManyRequests, Unavailable
from proxy.oci.names import Digest
from proxy.policy.quota import Gate
from tests.eventually import eventually
from tests.fake_hub import Answer, FakeHub, at
from tests.upstream_rig import LATEST, REPOSITORY, asking, asking_as_account, fetched

CONTENT = bytes(range(256)) * 4000
SIZE = len(CONTENT)


def with_blob(hub: FakeHub, content: bytes = CONTENT) -> str:
    digest = hub.add_blob(content)
    hub.link_blob(REPOSITORY.name, digest)
    return digest


@pytest.mark.parametrize("direct", [False, True])
async def test_a_blob_comes_whole_with_its_size_known_first(direct: bool) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.direct_blobs = direct
        digest = with_blob(hub)

        async with upstream.open_blob(REPOSITORY, Digest.parse(digest)) as body:
            assert (body.size, body.start) == (SIZE, 0)
            content = b""
            while data := await body.read():
                content += data
        assert content == CONTENT
        assert upstream.sample("fetched_bytes_total", kind="blob") == SIZE
        assert hub.violations == []


@pytest.mark.parametrize("direct", [False, True])
async def test_a_blob_is_continued_from_an_offset(direct: bool) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.direct_blobs = direct
        digest = with_blob(hub)

        async with upstream.open_blob(REPOSITORY, Digest.parse(digest), 1000) as body:
            assert (body.size, body.start) == (SIZE, 1000)
        assert await fetched(upstream, digest, 1000) == CONTENT[1000:]
        assert hub.bytes_sent(digest) <= 2 * SIZE


async def test_where_range_is_ignored_the_blob_starts_at_its_beginning() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = with_blob(hub)
        hub.no_range("cdn")

        async with upstream.open_blob(REPOSITORY, Digest.parse(digest), 1000) as body:
            assert (body.size, body.start) == (SIZE, 0)


async def test_an_offset_beyond_the_end_starts_again_at_the_beginning() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = with_blob(hub)

        async with upstream.open_blob(REPOSITORY, Digest.parse(digest), SIZE + 1) as body:
            assert (body.size, body.start) == (SIZE, 0)


@pytest.mark.parametrize(
    "part", ["bytes 0-9/10", "bytes 999-1023999/1024000", "bytes */1024000", "items 1000-1023999/1024000", "", "?"]
)
async def test_another_part_than_was_asked_for_is_unavailable(part: str) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = with_blob(hub)
        headers = CIMultiDict({"content-range": part})
        hub.replace("cdn", lambda _: Answer(206, headers))

        with pytest.raises(Unavailable, match="another part"):
            async with upstream.open_blob(REPOSITORY, Digest.parse(digest), 1000):
                pass


async def test_a_206_that_was_not_asked_for_is_unavailable() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = with_blob(hub)
        hub.fail("cdn", 206)

        with pytest.raises(Unavailable):
            async with upstream.open_blob(REPOSITORY, Digest.parse(digest)):
                pass


async def test_a_part_that_ends_before_the_blob_does_is_unavailable_at_its_end() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = with_blob(hub)
        hub.change("cdn", lambda answer: setattr(answer, "window", (1000, 2000)))

        with pytest.raises(Unavailable, match="ended at another place"):
            await fetched(upstream, digest, 1000)


async def test_a_blob_of_unknown_size() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = with_blob(hub)
        hub.no_content_length("cdn")

        async with upstream.open_blob(REPOSITORY, Digest.parse(digest)) as body:
            assert body.size is None
        assert await fetched(upstream, digest) == CONTENT


@pytest.mark.parametrize("at_byte", [0, 1, SIZE // 2, SIZE - 1])
async def test_a_blob_that_ends_early_never_ends_cleanly(at_byte: int) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = with_blob(hub)

        hub.truncate("cdn", at_byte, times=1)
        with pytest.raises(Unavailable, match="broke"):
            await fetched(upstream, digest)
        hub.cut("cdn", at_byte)
        with pytest.raises(Unavailable, match="broke"):
            await fetched(upstream, digest)
        assert await fetched(upstream, digest) == CONTENT


async def test_what_came_before_a_break_is_given_before_it_is_raised() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = with_blob(hub)
        gate = hub.hold("cdn", 100_000)

        got = 0
        async with upstream.open_blob(REPOSITORY, Digest.parse(digest)) as body:
            while got < 100_000:
                got += len(await body.read())
            gate.cut()
            with pytest.raises(Unavailable, match="broke"):
                await body.read()


async def test_a_blob_that_stalls_is_unavailable_after_the_idle_time() -> None:
    async with FakeHub() as hub, asking(hub, idle_timeout=0.2) as upstream:
        digest = with_blob(hub)
        hub.hold("cdn", 100_000)

        with pytest.raises(Unavailable, match="idle time-out"):
            await fetched(upstream, digest)


async def test_leaving_drains_nothing() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        size = 256 * 2**20
        digest = hub.add_synthetic_blob(size)
        hub.link_blob(REPOSITORY.name, digest)

        async with upstream.open_blob(REPOSITORY, Digest.parse(digest)) as body:
            await body.read()
        assert hub.blob_bytes_sent < size // 2


async def test_leaving_closes_the_connection() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = with_blob(hub)
        hub.hold("cdn", 1000)

        async with upstream.open_blob(REPOSITORY, Digest.parse(digest)) as body:
            await body.read()
            assert hub.held("cdn") == 1
        await eventually(lambda: hub.held("cdn") == 0)


async def test_a_cancelled_reader_closes_the_connection() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = with_blob(hub)
        hub.hold("cdn", 1000)
        reading = asyncio.create_task(fetched(upstream, digest))
        await hub.wait_held("cdn")

        reading.cancel()
        await asyncio.wait([reading])
        await eventually(lambda: hub.held("cdn") == 0)


async def test_a_cancelled_opening_closes_the_connection() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = with_blob(hub)
        hub.hang("cdn")
        opening = asyncio.create_task(fetched(upstream, digest))
        await hub.wait_held("cdn")

        opening.cancel()
        await asyncio.wait([opening])
        await eventually(lambda: hub.held("cdn") == 0)


async def test_failures_of_the_reader_are_not_taken_for_upstreams() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = with_blob(hub)

        with pytest.raises(OSError, match="no space left"):
            async with upstream.open_blob(REPOSITORY, Digest.parse(digest)):
                raise OSError("no space left")


async def test_a_missing_blob_is_blob_unknown() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        with_blob(hub)
        missing = Digest.of(b"missing")

        with pytest.raises(BlobUnknown):
            await upstream.head_blob(REPOSITORY, missing)
        with pytest.raises(BlobUnknown):
            async with upstream.open_blob(REPOSITORY, missing):
                pass


async def test_a_429_to_a_blob_closes_everything() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = with_blob(hub)
        hub.fail("blob", 429)

        with pytest.raises(TooManyRequests):
            async with upstream.open_blob(REPOSITORY, Digest.parse(digest)):
                pass
        assert 30 <= (upstream.limits.closed_for(Gate.REQUESTS, upstream.clock.now) or 0) <= 37.5


async def test_an_encoded_blob_is_unavailable() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = with_blob(hub)
        hub.gzip_encode("cdn")

        with pytest.raises(Unavailable, match="Content-Encoding"):
            await fetched(upstream, digest)


@pytest.mark.parametrize("redirected", [False, True])
async def test_head_tells_the_size_and_fetches_nothing(redirected: bool) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.redirect_heads = redirected
        digest = with_blob(hub)

        assert await upstream.head_blob(REPOSITORY, Digest.parse(digest)) == SIZE
        assert hub.blob_bytes_sent == 0
        assert hub.count("GET", "blob") == 0
        assert hub.violations == []


@pytest.mark.parametrize("status", [401, 403, 405])
@pytest.mark.parametrize("where", ["blob", "cdn"])
async def test_where_head_is_refused_a_get_of_one_byte_tells_the_size(where: str, status: int) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = with_blob(hub)
        hub.fail(at(where, method="HEAD"), status)

        assert await upstream.head_blob(REPOSITORY, Digest.parse(digest)) == SIZE
        assert hub.blob_bytes_sent == 1


async def test_where_head_is_refused_and_range_ignored_the_body_is_not_read() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        size = 64 * 2**20
        digest = hub.add_synthetic_blob(size)
        hub.link_blob(REPOSITORY.name, digest)
        hub.refuse_head_blobs()
        hub.no_range("cdn")

        assert await upstream.head_blob(REPOSITORY, Digest.parse(digest)) == size
        assert hub.blob_bytes_sent < size // 2


async def test_the_size_of_an_empty_blob_and_of_one_that_is_not_told() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = Digest.parse(with_blob(hub, b""))
        hub.refuse_head_blobs()
        assert await upstream.head_blob(REPOSITORY, digest) == 0

        hub.no_range("cdn")
        hub.replace("cdn", lambda _: Answer(200, chunked=True))
        assert await upstream.head_blob(REPOSITORY, digest) is None


async def test_a_private_blob_is_denied() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = Digest.parse(with_blob(hub))
        hub.make_private(REPOSITORY.name)

        with pytest.raises(Denied):
            await upstream.head_blob(REPOSITORY, digest)
        with pytest.raises(Denied):
            async with upstream.open_blob(REPOSITORY, digest):
                pass


async def test_blobs_do_not_change_what_is_known_of_the_quota() -> None:
    async with FakeHub() as hub, asking_as_account(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.head_manifest(REPOSITORY, LATEST)
        digest = with_blob(hub)
        hub.change("any", lambda answer: answer.headers.update({"ratelimit-remaining": "0;w=1"}))

        await fetched(upstream, digest)
        assert upstream.limits.quota is not None and upstream.limits.quota.remaining == 100
