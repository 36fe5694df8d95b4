"""A store whose scrub the tests hold by the hand: its clock and its pauses are theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from proxy.config import CacheOptions
from proxy.metrics import Metrics
from proxy.oci.names import Digest
from proxy.store.blobs import Blobs
from proxy.store.index import Index
from proxy.store.integrity import Integrity
from proxy.store.locks import KeeperLock
from proxy.store.scrub import Scrub
from proxy.store.scrub.inventory import Inventory
from tests.cache_rig import Clock
from tests.eventually import eventually

Sleep = Callable[[float], Awaitable[None]]


class Stand:
    """What a scrub needs, on one folder."""

    def __init__(self, directory: Path, clock: Clock, executor: ThreadPoolExecutor) -> None:
        self.directory = directory
        self.clock = clock
        self.executor = executor
        self.metrics = Metrics(version="1")
        self.index = Index(directory / "index.sqlite", clock)
        integrity = Integrity(self.index, self.metrics)
        self.blobs = Blobs(directory, 0, executor, integrity)
        self.inventory = Inventory(self.blobs, self.index, integrity, executor)
        self.keeper = KeeperLock(directory / "keeper.lock", executor)

    async def put(self, content: bytes) -> Digest:
        """A blob, with its row, which is written."""
        digest = Digest.of(content)
        await self.blobs.put(digest, content)
        self.index.put_blob(digest, len(content))
        await self.index.write(lambda _: None, remember=True)
        return digest

    def total(self, name: str) -> float:
        """A counter."""
        return self.metrics.registry.get_sample_value(f"pullthrough_scrub_{name}_total") or 0.0

    @asynccontextmanager
    async def scrub(
        self, rate: int = 0, interval: float = 1000.0, sleep: Sleep = asyncio.sleep
    ) -> AsyncIterator[Scrub]:
        """A scrub at work."""
        options = CacheOptions(directory=self.directory, scrub_rate=rate, scrub_interval=interval)
        scrub = Scrub(
            self.blobs,
            self.index,
            self.inventory,
            self.keeper,
            self.executor,
            options,
            self.metrics,
            self.clock,
            sleep,
        )
        await scrub.start()
        try:
            yield scrub
        finally:
            await scrub.aclose()


@asynccontextmanager
async def stand(directory: Path, clock: Clock) -> AsyncIterator[Stand]:
    """An open folder, kept by this one."""
    with ThreadPoolExecutor(2) as executor:
        made = Stand(directory, clock, executor)
        made.blobs.prepare(alone=True)
        made.index.open(asyncio.get_running_loop())
        await made.keeper.start()
        try:
            yield made
        finally:
            await made.keeper.aclose()
            made.index.close()


async def done(scrub: Scrub) -> None:
    """Wait for the end of the run."""
    await eventually(lambda: scrub.status().started_at and not scrub.status().running, label="the scrub has ended")


class Pauses:
    """Takes the pauses of a scrub: notes them, and holds the one after `free` of them until `release`."""

    def __init__(self, clock: Clock, free: int | None = None) -> None:
        self.taken = 0
        self._clock = clock
        self._free = free
        self._released = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.taken += 1
        self._clock.advance(seconds)
        if self._free is not None and self.taken > self._free:
            await self._released.wait()

    @property
    def held(self) -> bool:
        """Whether a pause is held."""
        return self._free is not None and self.taken > self._free and not self._released.is_set()

    def release(self) -> None:
        """Let it go on."""
        self._released.set()
