"""`kill -9` at random moments under load, each followed by a restart and a look at everything that is on disk.

What must hold after each kill: every byte that any client got is right, every file of the store has the digest of its
name, every partial is the beginning of its blob and is gone on from where it ends, the index is usable, and no fill is
stuck.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from endurance.clients import Crowd, Findings
from endurance.errors import EnduranceError
from endurance.goods import KIB, MIB, Goods, mixed_sizes, partials, wrong_blobs, wrong_partials
from endurance.serving import Serving
from tests.fake_hub import FakeHub, spoilt

SETTLED_WITHIN: Final = 120.0
_SECTIONS: Final = {"freshness": {"tags": "1s"}}
_PACE: Final = (128 * KIB, 0.02)
"""The CDN sends so many bytes and then waits so many seconds: a kill meets transfers that are under way."""
_SHARE_THAT_VANISHES: Final = 0.5
"""Of the files of the store, after each kill: there is always something to fetch, and a lost file is a trial too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How long a loop it is."""

    kills: int
    clients: int = 16
    blobs: int = 40
    largest: int = 32 * MIB


SHORT: Final = Form(kills=10, clients=8, blobs=16, largest=8 * MIB)
LONG: Final = Form(kills=200)


@dataclass
class Outcome:
    """What came of it."""

    kills: int = 0
    findings: Findings = field(default_factory=Findings)
    wrong_blobs: list[str] = field(default_factory=list)
    wrong_partials: list[str] = field(default_factory=list)
    blobs_hashed: int = 0
    scrubbed: int = 0
    partials_left: int = 0
    partials_resumed: int = 0
    not_resumed: list[str] = field(default_factory=list)
    upstream_bytes: int = 0
    stuck: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """What must not be."""
        return [
            *self.findings.wrong,
            *(f"wrong on disk: {name}" for name in self.wrong_blobs),
            *(f"a partial with wrong bytes: {name}" for name in self.wrong_partials),
            *(f"not resumed: {name}" for name in self.not_resumed),
            *(f"stuck: {fill}" for fill in self.stuck),
            *(f"logged: {line}" for line in self.complaints),
        ]

    def rows(self) -> list[tuple[str, str]]:
        """The figures, for a table."""
        found = self.findings
        return [
            ("kills", str(self.kills)),
            ("bytes that clients compared with the right ones", f"{found.right_bytes / MIB:,.0f} MiB"),
            ("of them wrong", str(sum("wrong bytes" in text for text in found.wrong))),
            ("bodies complete; broken off; left by the client", f"{found.complete}; {found.broken}; {found.left}"),
            ("files of the store hashed after kills; wrong", f"{self.blobs_hashed}; {len(self.wrong_blobs)}"),
            ("files that `pullthrough scrub` found good at the end", str(self.scrubbed)),
            (
                "partials left by kills; asked for again; resumed at their end",
                f"{self.partials_left}; {self.partials_resumed + len(self.not_resumed)}; {self.partials_resumed}",
            ),
            ("sent by the upstream", f"{self.upstream_bytes / MIB:,.0f} MiB"),
            ("fills stuck at the end", str(len(self.stuck))),
            ("tracebacks in the log", str(len(self.complaints))),
        ]


class KillLoop:
    """One loop on one folder, which is empty at first. `say` is told how it goes."""

    def __init__(self, folder: Path, form: Form, seed: int, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._form = form
        self._rng = random.Random(seed)
        self._say = say
        self.outcome = Outcome()

    async def run(self) -> Outcome:
        """All of it. Raises EnduranceError when it cannot go on."""
        async with FakeHub(rate_limit=None) as hub:
            sizes = mixed_sizes(self._form.blobs, self._form.largest, self._rng)
            goods = Goods(hub, sizes, max(2, self._form.blobs // 4), self._rng)
            hub.change("cdn", spoilt.drip(*_PACE))
            cache = Serving(self._folder, hub.url, _SECTIONS)
            crowd = Crowd(goods, lambda: cache.url, self._rng)
            self.outcome.findings = crowd.findings
            try:
                async with crowding(crowd, self._form.clients):
                    await self._kill_again_and_again(hub, goods, cache)
                await self._end(hub, goods, cache, crowd)
            finally:
                await cache.kill()
        return self.outcome

    async def _kill_again_and_again(self, hub: FakeHub, goods: Goods, cache: Serving) -> None:
        left: dict[str, int] = {}
        for number in range(1, self._form.kills + 1):
            await cache.start()
            await asyncio.sleep(self._rng.uniform(0.05, 1.5))
            cache.url = ""
            await cache.kill()
            self.outcome.kills = number
            self._see_what_was_resumed(hub, left)
            left = await asyncio.to_thread(self._examine, cache.directory, goods)
            if number % 10 == 0:
                self._say(f"{number} kills: {self.outcome.findings}")
            if self.outcome.failures:
                raise EnduranceError(f"kill {number}: {self.outcome.failures[0]}")

    def _examine(self, directory: Path, goods: Goods) -> dict[str, int]:
        """Hash everything; the partials there are. Blocking."""
        self.outcome.blobs_hashed += sum(1 for _ in (directory / "blobs").glob("*/*/*"))
        self.outcome.wrong_blobs += wrong_blobs(directory)
        self.outcome.wrong_partials += wrong_partials(directory, goods)
        left = partials(directory)
        self.outcome.partials_left += len(left)
        self._lose_some(directory)
        return left

    def _lose_some(self, directory: Path) -> None:
        for path in sorted((directory / "blobs").glob("*/*/*")):
            if self._rng.random() < _SHARE_THAT_VANISHES:
                path.unlink()

    def _see_what_was_resumed(self, hub: FakeHub, left: dict[str, int]) -> None:
        """Where the first request to the CDN for each blob began of which the kill before had left a part."""
        for digest, size in left.items():
            asked = (
                each for each in hub.requests if (each.method, each.kind, each.reference) == ("GET", "cdn", digest)
            )
            first = next(asked, None)
            if first is None or size == 0:
                continue  # Nobody asked for it meanwhile.
            if first.range == f"bytes={size}-":
                self.outcome.partials_resumed += 1
            else:
                self.outcome.not_resumed.append(f"{digest}: {size} bytes were there, Range was {first.range}")
        self.outcome.upstream_bytes += hub.blob_bytes_sent
        hub.reset_counts()

    async def _end(self, hub: FakeHub, goods: Goods, cache: Serving, crowd: Crowd) -> None:
        """Once more all that there is, and then the peace that has to follow."""
        await cache.start()
        await crowd.pull_everything()
        try:
            async with asyncio.timeout(SETTLED_WITHIN):
                while fills := (await cache.status())["fills"]:  # noqa: ASYNC110 (another process tells no event)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            self.outcome.stuck += [str(fill) for fill in fills]
        await self._scrub(cache)
        await cache.stop()
        await asyncio.to_thread(self._examine, cache.directory, goods)
        self.outcome.upstream_bytes += hub.blob_bytes_sent
        self.outcome.complaints += cache.complaints()
        self.outcome.complaints += [path.name for path in cache.directory.glob("index.sqlite.unusable-*")]

    async def _scrub(self, cache: Serving) -> None:
        """What the cache itself says of its store. Files that we have removed are missing, and none is bad."""
        _, said = await cache.command("scrub", "--json")
        try:
            found = json.loads(said)
        except ValueError:
            raise EnduranceError(f"pullthrough scrub: {said.strip()[-300:]}") from None
        self.outcome.scrubbed = found["files"] - found["bad"]
        self.outcome.wrong_blobs += [f"{found['bad']} by the scrub"] if found["bad"] else []


@asynccontextmanager
async def crowding(crowd: Crowd, clients: int) -> AsyncIterator[None]:
    """Clients, as long as the block runs."""
    running = asyncio.create_task(crowd.run(clients))
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
