"""What the tests of several connections share: an upstream that is slow by the connection, and TLS in front of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from yarl import URL

from tests.authority import DAY, Authority
from tests.blob_rig import MIB
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub, Recorded

SEGMENT = MIB
PIECE = (64 * 1024, 0.003)
"""So much at a time, and the pause: far less than 80 MB/s, however slow the machine is."""


def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said of segments in MiB, at an eighth of the size."""
    monkeypatch.setattr("proxy.store.fills.segments.SEGMENT_BYTES", SEGMENT)
    monkeypatch.setattr("proxy.store.fills.several.SEGMENT_BYTES", SEGMENT)
    monkeypatch.setattr("proxy.store.fills.several.HEADSTART_BYTES", 2 * SEGMENT)
    monkeypatch.setattr("proxy.store.fills.receiving.WORTHWHILE_BYTES", 4 * SEGMENT)


def slow(hub: FakeHub, pace: tuple[int, float] = PIECE) -> None:
    """Cap every connection that brings a blob."""
    hub.change(is_transfer, lambda answer: setattr(answer, "pace", pace), content_only=True)


def is_transfer(request: Recorded) -> bool:
    """Whether it asks for bytes of a blob."""
    return request.method == "GET" and request.kind in ("blob", "cdn")


def is_segment(request: Recorded) -> bool:
    """Whether it asks for a part with an end."""
    return request.kind in ("blob", "cdn") and re.fullmatch(r"bytes=\d+-\d+", request.range or "") is not None


def segments_asked(hub: FakeHub) -> list[str]:
    """The ranges of the requests for segments that were not only challenged or sent on."""
    return [request.range or "" for request in hub.requests if is_segment(request) and request.status not in (401, 307)]


async def outcome(cache: CacheRig, name: str) -> float | None:
    """How many fills over several connections came out so."""
    return await cache.metric("pullthrough_segmented_fills_total", outcome=name)


@asynccontextmanager
async def over_tls(hub: FakeHub, authority: Authority, folder: Path) -> AsyncIterator[str]:
    """The registry of the hub, and its tokens, at an https URL: blobs come from there without a redirect."""
    context = authority.sign(folder, "localhost", -DAY, DAY)
    hub.direct_blobs = True
    ends: set[asyncio.StreamWriter] = set()

    async def front(target: URL) -> asyncio.Server:
        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            back_reader, back_writer = await asyncio.open_connection(target.host, target.port)
            ends.update((writer, back_writer))
            async with asyncio.TaskGroup() as both:
                both.create_task(_pipe(reader, back_writer))
                both.create_task(_pipe(back_reader, writer))

        return await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)

    registry, token = await front(URL(hub.url)), await front(URL(hub.token_url))
    hub.realm = f"https://localhost:{token.sockets[0].getsockname()[1]}/token"
    try:
        yield f"https://localhost:{registry.sockets[0].getsockname()[1]}"
    finally:
        for server in (registry, token):
            server.close()
        for end in ends:
            end.transport.abort()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(64 * 1024):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.transport.abort() if writer.transport.get_write_buffer_size() == 0 else writer.close()
