"""A cache of a million entries: how long it takes to start, to find, to list, and to evict, and who waits meanwhile."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp

from endurance.errors import EnduranceError
from endurance.fabricate import Entry, entry, fabricate
from endurance.goods import MIB
from endurance.probe import Waits, probing
from endurance.serving import Serving
from tests.fake_hub import FakeHub

PROBED: Final = "acme/small"
EVICTED_WITHIN: Final = 1800.0
_IDLE_SECONDS: Final = 10.0
_STEP_SECONDS: Final = 0.2
_SHARE_EVICTED: Final = 0.2
_COMMANDS: Final = (
    ("ls",),
    ("ls", "--json"),
    ("gc", "--dry-run"),
    ("purge", "--older-than", "60d", "--dry-run"),
)
_LOOKUPS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How many entries."""

    entries: int
    idle_seconds: float = _IDLE_SECONDS


SHORT: Final = Form(entries=5_000, idle_seconds=1.0)
LONG: Final = Form(entries=1_000_000)


@dataclass
class Outcome:
    """What came of it: figures in the order in which they were taken."""

    figures: list[tuple[str, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def rows(self) -> list[tuple[str, str]]:
        """The figures, for a table."""
        return self.figures

    def note(self, name: str, figure: str) -> None:
        """One more."""
        self.figures.append((name, figure))


class Million:
    """One run on one folder, which is empty at first. `say` is told how it goes."""

    def __init__(self, folder: Path, form: Form, seed: int, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._form = form
        self._rng = random.Random(seed)
        self._say = say
        self._peak = 0
        self.outcome = Outcome()

    async def run(self) -> Outcome:
        """All of it. Raises EnduranceError when it cannot go on."""
        async with FakeHub(rate_limit=None) as hub:
            image = hub.add_image(PROBED, "latest")
            cache = Serving(self._folder, hub.url, _sections(0))
            self._say(f"making {self._form.entries:,} entries")
            cache.directory.mkdir()
            total = await asyncio.to_thread(fabricate, cache.directory, self._form.entries)
            self.outcome.note(
                "entries; bytes that they stand for", f"{self._form.entries:,}; {total / MIB / 1024:,.0f} GiB"
            )
            try:
                await self._start(cache)
                await self._look_up(cache)
                await self._list(cache)
                await self._evict(cache, total, f"{cache.url}/v2/{PROBED}/manifests/{image.digest}")
                await self._restart(cache)
            finally:
                await cache.kill()
            self.outcome.failures += [f"logged: {line}" for line in cache.complaints()]
        return self.outcome

    async def _start(self, cache: Serving) -> None:
        took = await _seconds(cache.start)
        self.outcome.note("start-up, from the exec to the first answer", f"{took:.2f} s")
        self._note_memory(cache, "memory after the start")

    async def _look_up(self, cache: Serving) -> None:
        """HEAD of stored blobs that nobody asked for before: the index, and a stat."""
        now = time.time()
        asked = [entry(self._rng.randrange(self._form.entries), now) for _ in range(_LOOKUPS)]
        waits = Waits()
        async with aiohttp.ClientSession() as session:
            for each in asked:
                waits.waits.append(1000 * await _seconds(partial(self._head, session, cache, each)))
        self.outcome.note("the first lookup", f"{waits.waits[0]:.1f} ms")
        self.outcome.note("lookups of others", str(Waits(waits.waits[1:])))

    async def _head(self, session: aiohttp.ClientSession, cache: Serving, wanted: Entry) -> None:
        async with session.head(cache.url + wanted.path) as response:
            found = response.status, response.headers.get("Content-Length"), response.headers.get("Cache-Status", "")
        if found[:2] != (200, str(wanted.size)) or "hit" not in found[2]:
            self.outcome.failures.append(f"{wanted.path}: {found}")

    async def _list(self, cache: Serving) -> None:
        for words in _COMMANDS:
            begin = time.perf_counter()
            code, said = await cache.command(*words)
            took = time.perf_counter() - begin
            self.outcome.note(f"`{' '.join(words)}`", f"{took:.1f} s, {said.count(chr(10)):,} lines")
            if code:
                self.outcome.failures.append(f"{' '.join(words)} ended with {code}: {said.strip()[-300:]}")
        self._note_memory(cache, "memory after that")

    async def _evict(self, cache: Serving, total: int, small: str) -> None:
        async with aiohttp.ClientSession() as session, session.get(small) as response:
            if response.status != 200:
                raise EnduranceError(f"the probe's manifest is answered {response.status}")
        async with probing(small) as idle:
            await asyncio.sleep(self._form.idle_seconds)
        self.outcome.note("a small hit every 5 ms, idle", str(idle))
        before = await self._blobs(cache)
        cache.configure(_sections(int(total * (1 - _SHARE_EVICTED))))
        begin = time.perf_counter()
        async with probing(small) as busy:
            cache.signal(signal.SIGHUP)
            await self._until_evicted(cache, before)
        took = time.perf_counter() - begin
        gone = before - await self._blobs(cache)
        self.outcome.note("evicted", f"{gone:,} in {took:.1f} s: {gone / took:,.0f} a second")
        self.outcome.note("a small hit every 5 ms, while it evicts", str(busy))
        self.outcome.note("hits that failed meanwhile", str(busy.failed))
        self.outcome.note("memory at most while it evicts", f"{self._peak / MIB:.0f} MiB")
        if busy.failed:
            self.outcome.failures.append(f"{busy.failed} hits failed while it evicted")

    async def _until_evicted(self, cache: Serving, before: int) -> None:
        """Until less is stored than may be, and for two looks no more goes."""
        wanted = int(before * _SHARE_EVICTED * 0.9)
        seen = [before]
        try:
            async with asyncio.timeout(EVICTED_WITHIN):
                while before - seen[-1] < wanted or len(seen) < 3 or len(set(seen[-3:])) > 1:
                    await asyncio.sleep(_STEP_SECONDS)
                    seen.append(await self._blobs(cache))
                    self._peak = max(self._peak, cache.footprint().rss)
        except TimeoutError:
            raise EnduranceError(f"{before - seen[-1]:,} of {wanted:,} were evicted in {EVICTED_WITHIN:g} s") from None

    async def _restart(self, cache: Serving) -> None:
        await cache.stop()
        took = await _seconds(cache.start)
        self.outcome.note("start-up after that", f"{took:.2f} s")
        files = await asyncio.to_thread(lambda: sum(1 for _ in (cache.directory / "blobs").glob("*/*/*")))
        known = await self._blobs(cache)
        if files != known:
            self.outcome.failures.append(f"{files} files, and the index knows {known}")

    async def _blobs(self, cache: Serving) -> int:
        return int((await cache.status())["cache"]["blobs"])

    def _note_memory(self, cache: Serving, name: str) -> None:
        self.outcome.note(name, f"{cache.footprint().rss / MIB:.0f} MiB")


def _sections(max_size: int) -> dict[str, dict[str, object]]:
    return {"cache": {"max_size": max_size, "min_free": 0, "scrub_rate": 0}}


async def _seconds(act: Callable[[], Awaitable[object]]) -> float:
    begin = time.perf_counter()
    await act()
    return time.perf_counter() - begin
