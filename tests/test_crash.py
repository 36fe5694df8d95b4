"""`kill -9` in mid-fill: what is on disk afterwards is right, and the next run goes on from there."""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.blob_rig import KIB, MIB, add_layer, path_of, ranges_asked
from tests.eventually import eventually
from tests.fake_hub import FakeHub

REPOSITORY = "library/app"
ROOT = Path(__file__).parent.parent


@asynccontextmanager
async def serving(directory: Path, hub: FakeHub) -> AsyncIterator[str]:
    """The program in a process of its own, at this URL, until it is killed."""
    config = directory.with_suffix(".toml")
    config.write_text(
        f"""
        [server]
        listen = "127.0.0.1:0"
        [admin]
        listen = "127.0.0.1:0"
        [cache]
        directory = "{directory}"
        [log]
        access = false
        [[upstream]]
        name = "docker.io"
        url = "{hub.url}"
        """
    )
    arguments = ("-m", "proxy", "serve", "--config", str(config))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    assert process.stderr is not None
    try:
        log = b""
        while not (found := re.search(rb"clients: (http://\S+)", log)):
            line = await process.stderr.readline()
            assert line, f"the cache did not start: {log.decode()}"
            log += line
        yield found[1].decode()
    finally:
        process.kill()
        await process.communicate()


async def get(url: str) -> bytes:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        return await response.read()


async def has_size(path: Path, size: int) -> None:
    await eventually(lambda: path.exists() and path.stat().st_size == size, label=f"{size} bytes in {path.name}")


def assert_blobs_are_right(directory: Path) -> None:
    for path in (directory / "blobs").glob("*/*/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


async def test_a_kill_in_mid_fill_loses_nothing_that_had_arrived(hub: FakeHub, tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    layer = add_layer(hub, 4 * MIB)
    stored = add_layer(hub, 200 * KIB, seed=1)
    partial = directory / "partial" / layer.digest.replace(":", "-")
    path = path_of(REPOSITORY, layer.digest)
    offsets = [1000, 700 * KIB + 1, 4 * MIB - 1]

    for start, stop in zip([0, *offsets], offsets, strict=False):
        gate = hub.hold(layer.digest, after_bytes=stop - start, times=1)
        async with serving(directory, hub) as url:
            assert await get(url + path_of(REPOSITORY, stored.digest)) == stored.content
            cut_off = asyncio.create_task(get(url + path))
            await has_size(partial, stop)
        gate.cut()
        with pytest.raises(aiohttp.ClientError):
            await cut_off
        assert partial.read_bytes() == layer.content[:stop]
        assert not list((directory / "blobs").glob(f"*/*/{layer.digest[7:]}"))
        assert_blobs_are_right(directory)

    async with serving(directory, hub) as url:
        received = await get(url + path)
        await eventually(lambda: not partial.exists(), label="the blob has its name")

    assert received == layer.content
    assert ranges_asked(hub, layer.digest) == [None, *(f"bytes={offset}-" for offset in offsets)]
    assert hub.bytes_sent(layer.digest) == layer.size
    assert hub.bytes_sent(stored.digest) == stored.size
    assert_blobs_are_right(directory)
