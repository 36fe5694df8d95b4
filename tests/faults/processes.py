"""The program itself, as a process: killed, stopped, and started twice on one folder."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp

from endurance.serving import Sections, Serving, serving
from tests.blob_rig import KIB
from tests.eventually import eventually
from tests.faults.client import Received, assert_harmless, bounded, received
from tests.faults.fault import Fault, Seen
from tests.faults.pulling import resumed_since, then_in_words
from tests.faults.stand import Stand

HALF = 512 * KIB
_ASKED = "a blob, cold"
_Course = Callable[[Stand, Serving], Awaitable[str]]
"""What happens to a process, and what the client saw."""


def _process(title: str, course: _Course, sections: Sections | None = None, *, within: float = 30.0) -> Fault:
    """A fault of the process; after it, the program is started again on what it left."""

    async def run(stand: Stand) -> Seen:
        async with _on_the_same_folder(stand, sections) as cache:
            async with asyncio.timeout(within):
                client = await course(stand, cache)
            await cache.kill()
            disk = stand.on_disk(stand.layer.digest, stand.layer.content)
            stand.assert_blobs_are_right()
            stand.hub.heal()
            asked_before = len(stand.hub.requests)
            await cache.start()
            got = await bounded(_pull(stand, cache), within)
            assert (got.status, got.whole, got.body) == (200, True, stand.layer.content), f"the next pull: {got}"
            resumed = resumed_since(stand, stand.layer.digest, asked_before)
            await eventually(lambda: stand.layer.digest in stand.cache.blobs_on_disk(), label="it is stored")
            stand.assert_blobs_are_right()
            assert cache.complaints() == []
            assert stand.hub.violations == []
        return Seen(client, disk, "(a new process)", then_in_words(got, resumed))

    return Fault(title, _ASKED, within, run)


@asynccontextmanager
async def _on_the_same_folder(stand: Stand, sections: Sections | None) -> AsyncIterator[Serving]:
    """The program in a process, in the place of the stand's own."""
    await stand.cache.stop()
    folder = stand.folder / "process"
    folder.mkdir()
    async with serving(folder, stand.hub.url, sections) as cache:
        stand.cache.directory = cache.directory
        yield cache
    await stand.cache.start()


async def _pull(stand: Stand, cache: Serving, body: bytearray | None = None) -> Received:
    async with aiohttp.ClientSession() as session:
        return await received(session.get(cache.url + stand.layer.path), body)


async def _half_way(stand: Stand, cache: Serving) -> asyncio.Task[Received]:
    """A client whose blob is half there."""
    stand.hub.hold("cdn", HALF, times=1)
    body = bytearray()
    pulling = asyncio.create_task(_pull(stand, cache, body))
    partial = stand.cache.directory / "partial" / stand.layer.digest.replace(":", "-")
    await eventually(lambda: partial.exists() and partial.stat().st_size == HALF, label="half of it is on disk")
    await eventually(lambda: len(body) == HALF, label="the client has it too")
    return pulling


async def _killed(stand: Stand, cache: Serving) -> str:
    pulling = await _half_way(stand, cache)
    await cache.kill()
    return _told(stand, await pulling)


async def _killed_when_done(stand: Stand, cache: Serving) -> str:
    """At the moment when the client has all of it: its name may be there by then or not."""
    got = await _pull(stand, cache)
    await eventually(lambda: stand.layer.digest in stand.cache.blobs_on_disk(), label="it has its name")
    await cache.kill()
    return _told(stand, got)


async def _stopped(stand: Stand, cache: Serving) -> str:
    pulling = await _half_way(stand, cache)
    cache.signal(signal.SIGTERM)
    await eventually(lambda: "stopping" in cache.log_text(), label="it stops")
    stand.hub.release()
    assert await cache.ended() == 0
    return _told(stand, await pulling)


async def _stopped_while_upstream_stalls(stand: Stand, cache: Serving) -> str:
    pulling = await _half_way(stand, cache)
    assert await cache.stop() == 0
    return _told(stand, await pulling)


async def _two_on_one_folder(stand: Stand, cache: Serving) -> str:
    """While one process fetches a blob, a second one starts on the same folder and is asked for it."""
    pulling = await _half_way(stand, cache)
    folder = stand.folder / "second"
    folder.mkdir()
    async with serving(folder, stand.hub.url, {"cache": {"directory": str(cache.directory)}}) as second:
        got = await _pull(stand, second)
        stand.hub.release()
        first = await pulling
        assert second.complaints() == []
    return f"of the first {_told(stand, first)}; of the second {_told(stand, got)}"


def _told(stand: Stand, got: Received) -> str:
    assert_harmless(got, stand.layer.content)
    assert stand.layer.content.startswith(got.body)
    return str(got)


PROCESSES = (
    _process("kill -9 in mid-fill", _killed),
    _process("kill -9 right after the pull", _killed_when_done),
    _process("SIGTERM in mid-fill", _stopped),
    _process(
        "SIGTERM in mid-fill, and the upstream stalls",
        _stopped_while_upstream_stalls,
        {"server": {"shutdown_timeout": "1s"}},
    ),
    _process("a second process on the same folder, in mid-fill", _two_on_one_folder),
)
