"""An upstream whose headers are no text: what of them reaches clients is text, and none is an error of ours."""

from __future__ import annotations

import asyncio
import logging
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.cache_rig import CacheRig

BODY = b'{"name": "library/app", "tags": ["latest"]}'
LIST = "/v2/library/app/tags/list"
FIELDS = [
    b"OCI-Filters-Applied: artifactType\xaa",
    b"OCI-Filters-Applied: artifact\x01Type",
    b'Warning: 299 - "\xaa"',
    b"Docker-Content-Digest: \xaa",
    b'ETag: "\xaa"',
    b"Content-Type: application/json; charset=\xaa",
    b"RateLimit-Limit: \xaa",
    b"Docker-RateLimit-Source: \xaa\x01",
    b"Date: \xaa",
]


@asynccontextmanager
async def upstream(fields: bytes) -> AsyncIterator[str]:
    """Answers everything with the same list and these header fields."""

    async def answer(reader: StreamReader, writer: StreamWriter) -> None:
        while (await reader.readline()).strip():
            pass
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n%b\r\n\r\n" % (len(BODY), fields)
        writer.write(head + BODY)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("field", FIELDS, ids=ascii)
@pytest.mark.parametrize("path", [LIST, f"/v2/library/app/referrers/sha256:{'0' * 64}", "/v2/library/app/manifests/x"])
async def test_no_header_of_upstream_is_an_error_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, field: bytes, path: str
) -> None:
    async with upstream(field) as url, CacheRig(url, tmp_path, username=None, private="serve") as cache:
        reply = await cache.send("GET", path)

    assert reply.status in (200, 404, 503)
    assert reply.status == 200 or path != LIST
    assert not [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR or each.exc_info]


async def test_a_next_page_that_cannot_be_asked_for_is_said_to_be_missing(tmp_path: Path) -> None:
    async with (
        upstream(b'Link: </v2/x?last=\xaa>; rel="next"') as url,
        CacheRig(url, tmp_path, username=None, private="serve") as cache,
    ):
        assert (await cache.send("GET", LIST)).status == 503
