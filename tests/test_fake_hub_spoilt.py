"""The hub's answers that are wrong as HTTP, or too slow, as they are on the wire."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.eventually import eventually
from tests.fake_hub import FakeHub, HubClient, spoilt
from tests.raw_http import raw_client

REPOSITORY = "acme/app"
BODY = b"0123456789" * 10


async def asked(hub: FakeHub) -> bytes:
    """All that is sent for a blob, up to the end of the connection."""
    path = await signed_path(hub)
    async with raw_client(hub.cdn_url) as client:
        client.ask("GET", path, "Connection: close")
        return await client.rest()


async def signed_path(hub: FakeHub) -> str:
    """Where the CDN gives a blob to whoever asks."""
    digest = hub.add_blob(BODY)
    hub.link_blob(REPOSITORY, digest)
    async with aiohttp.ClientSession() as session:
        return (await HubClient(hub, session, REPOSITORY).location(digest)).removeprefix(hub.cdn_url)


async def test_a_drip_comes_in_small_pieces(hub: FakeHub) -> None:
    path = await signed_path(hub)
    hub.change("cdn", spoilt.drip(10, 3600.0), content_only=True)

    async with raw_client(hub.cdn_url) as client:
        client.ask("GET", path)
        _, headers = await client.head()
        first = await client.read(10)
        await eventually(lambda: hub.requests[-1].sent == 10)

    assert (first, headers["Content-Length"]) == (BODY[:10], str(len(BODY)))


async def test_slow_headers_come_a_byte_at_a_time(hub: FakeHub) -> None:
    path = await signed_path(hub)
    hub.change("cdn", spoilt.slow_headers(3600.0))

    async with raw_client(hub.cdn_url) as client:
        client.ask("GET", path)
        assert await client.read(1) == b"H"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.read(1)


@pytest.mark.parametrize(
    ("change", "head", "end"),
    [
        (spoilt.said_length(7), b"content-length: 7\r\n", BODY),
        (spoilt.said_length(10**18), b"content-length: 1000000000000000000\r\n", BODY),
        (spoilt.said_length("ten"), b"content-length: ten\r\n", BODY),
        (spoilt.trailing(b"more"), b"content-length: 100\r\n", BODY + b"more"),
        (spoilt.huge_header(5000), b"x-huge: " + b"x" * 5000 + b"\r\n", BODY),
        (spoilt.many_headers(300), b"x-299: y\r\n", BODY),
    ],
    ids=["short", "endless", "no number", "trailing", "huge header", "many headers"],
)
async def test_what_is_said_is_on_the_wire(hub: FakeHub, change: spoilt.Change, head: bytes, end: bytes) -> None:
    hub.change("cdn", change, content_only=True)

    before, _, after = (await asked(hub)).partition(b"\r\n\r\n")

    assert head in before + b"\r\n"
    assert before.startswith(b"HTTP/1.1 200 ")
    assert after == end


async def test_healing_ends_it(hub: FakeHub) -> None:
    hub.change("cdn", spoilt.said_length(7), content_only=True)
    hub.heal()

    assert (await asked(hub)).endswith(b"\r\n\r\n" + BODY)
