"""The client listener against thousands of broken requests on raw sockets.

FUZZ_INPUTS=200000 in the environment tries so many, FUZZ_SEED=7 others. A failure names the input.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from asyncio import StreamReader
from collections.abc import Iterator

import pytest
from yarl import URL

from proxy.config import ServerOptions
from tests.cache_rig import ANY_PORT, CacheRig
from tests.fake_hub import FakeHub, at
from tests.fuzz_requests import inputs
from tests.leftovers import nothing_left_over

INPUTS = int(os.environ.get("FUZZ_INPUTS", "3000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
AT_ONCE = 16

STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n((?:[!-9;-~]+: [^\r\n]*\r\n)+)\r\n")
EXPECTED = frozenset({200, 206, 304, 400, 403, 404, 405, 408, 414, 416, 431})


async def say(url: URL, data: bytes, pieces: int) -> bytes:
    """Send this in a few pieces, end our side, and return what is answered."""
    assert url.host and url.port
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        for start in range(0, len(data), step := max(1, len(data) // pieces)):
            writer.write(data[start : start + step])
            await asyncio.sleep(0)
        writer.write_eof()
        return await _rest(reader)
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


async def _rest(reader: StreamReader) -> bytes:
    received = b""
    try:
        while piece := await reader.read(1 << 16):
            received += piece
    except ConnectionError:
        pass  # What was sent beyond the answer was not read: the end is a reset then.
    return received


def statuses(answer: bytes) -> Iterator[int]:
    """Of the responses in an answer. What looks like one must be whole."""
    for found in STATUS.finditer(answer):
        assert b"Server: pullthrough\r\n" in found[2]
        yield int(found[1])


async def test_nothing_that_is_sent_is_more_than_a_client_error(
    hub: FakeHub, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    image = hub.add_image("library/app", "latest", [b"layer" * 1000])
    paths = [f"/v2/library/app/blobs/{digest}" for digest in image.blobs] + ["/v2/library/app/manifests/latest"] * 3
    options = {"server": ServerOptions(listen=ANY_PORT, header_timeout=2.0, catalog=True)}
    failed: list[tuple[bytes, object]] = []
    seen: dict[int, int] = {}

    async def attempt(data: bytes, number: int) -> None:
        async with asyncio.timeout(20):
            answer = await say(URL(cache.url), data, pieces=1 + number % 3)
        found = set(statuses(answer))
        if (answer and not answer.startswith(b"HTTP/1.")) or not found <= EXPECTED:
            failed.append((data, answer))
        for status in found:
            seen[status] = seen.get(status, 0) + 1

    async def worker() -> None:
        for number, data in queue:
            try:
                await attempt(data, number)
            except TimeoutError:
                failed.append((data, "no end"))

    async with CacheRig(hub.url, tmp_path_factory.mktemp("fuzz") / "cache", options=options) as cache:
        for digest in image.blobs:
            await cache.get_blob("library/app", digest)
        await cache.get_manifest("library/app", "latest")
        hub.fail(at("manifest"), 404)  # What is asked for by chance is not there.
        queue = iter(list(enumerate(inputs(SEED, min(AT_ONCE * 4, INPUTS), paths))))
        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
        await cache.metrics()
        queue = enumerate(inputs(SEED + 1, INPUTS, paths))
        async with nothing_left_over():
            await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
        hub.heal()
        pulled = await cache.get_blob("library/app", image.layers[0])
        refused = await cache.metric("pullthrough_connections_refused_total", reason="malformed")
        connections = len(cache.app._connections)

    print(f"{INPUTS} inputs, answers by status: {dict(sorted(seen.items()))}; malformed: {refused:g}")
    assert failed[:3] == []
    assert (pulled.status, pulled.body) == (200, b"layer" * 1000)
    assert connections <= 1
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING or each.exc_info] == []
    assert {200, 206, 304, 400, 404, 405, 414, 431} <= set(seen)
