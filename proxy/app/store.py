"""What lives as long as the process and its folder: the bytes, the index, the fills, and who keeps them in order.

No reload of the configuration replaces anything here.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Final, Protocol

from proxy.app.errors import StartError
from proxy.clock import Clock
from proxy.config import CacheOptions, Config
from proxy.metrics import CacheSample, Metrics
from proxy.oci.names import Digest
from proxy.store.blobs import Blobs
from proxy.store.fills import Fills
from proxy.store.fills.several import SeveralConnections
from proxy.store.fills.transfer import Transfers
from proxy.store.index import Index
from proxy.store.index.bookkeeping import Bookkeeper
from proxy.store.integrity import Integrity
from proxy.store.locks import FolderLock, KeeperLock
from proxy.store.room import Claims, Room
from proxy.store.room.eviction import Evictor
from proxy.store.room.leases import Leases
from proxy.store.room.leftovers import Leftovers
from proxy.store.room.removal import Removal
from proxy.store.room.usage import Usage
from proxy.store.scrub import Scrub
from proxy.store.scrub.inventory import Inventory

DISK_THREADS: Final = 4
FILL_THREADS: Final = 8
TRANSFER_THREADS: Final = 32
"""Each has a buffer of 1 MiB. More large fills at a time are received on the event loop."""
FURTHER_CONNECTIONS: Final = 16
"""For blobs that are fetched over several. Each holds up to 1 MiB."""


class Keeper(Protocol):
    """Works in the background while the store is open, and owns the task it does that in."""

    async def start(self) -> None:
        """Begin. The store is open."""

    async def aclose(self) -> None:
        """End, and wait for the end. The store is still open. Called once `start` was, even if that failed."""


class Store:
    """The open folder of one process: `start`, then `finish`, then `aclose`."""

    def __init__(
        self, config: Config, metrics: Metrics, clock: Clock, changed: Callable[[], None] = lambda: None
    ) -> None:
        """`changed` is called when what answers depend on is another."""
        self.directory = config.cache.directory
        self._clock = clock
        self._disk = ThreadPoolExecutor(DISK_THREADS, "disk")
        self._writers = ThreadPoolExecutor(FILL_THREADS, "fill")
        self._scrubber = ThreadPoolExecutor(1, "scrub")
        self.index = Index(self.directory / "index.sqlite", clock, changed)
        integrity = Integrity(self.index, metrics)
        self.blobs = Blobs(self.directory, config.cache.memory, self._disk, integrity)
        self.usage = Usage(self.blobs, self.index, clock)
        self.removal = Removal(self.blobs, self.index)
        self.leases = Leases()
        self._transfers = Transfers(TRANSFER_THREADS)
        self._lock = FolderLock(self.directory / "lock")
        self.keeper_lock = KeeperLock(self.directory / "keeper.lock", self._disk)
        """Who makes room and reads everything again waits for this first."""
        leftovers = Leftovers(self.directory, self.blobs, self._disk, clock)
        self.room = Room(self.directory, self.index, leftovers, self._disk, config.cache)
        self.evictor = Evictor(
            self.room,
            leftovers,
            self.removal,
            self.index,
            self.usage,
            self._is_in_use,
            self.keeper_lock,
            config.cache,
            metrics,
            clock,
        )
        self.claims = Claims(self.room, self.evictor)
        self.fills = Fills(
            self.blobs,
            self.removal,
            self.claims,
            leftovers,
            metrics,
            self._writers,
            self._transfers,
            SeveralConnections(self.directory / "partial", self.claims, self._writers, metrics, FURTHER_CONNECTIONS),
            config.cache.max_fills,
        )
        bookkeeper = Bookkeeper(self.usage, self.index, clock)
        self.scrub = Scrub(
            self.blobs,
            self.index,
            Inventory(self.blobs, self.index, integrity, self._scrubber),
            self.keeper_lock,
            self._scrubber,
            config.cache,
            metrics,
            clock,
        )
        self._keepers: tuple[Keeper, ...] = (bookkeeper, self.keeper_lock, self.evictor, self.scrub)
        """Started in this order and closed in the reverse one: a line here is all that a keeper needs."""
        self._closing = AsyncExitStack()
        self._finishing = AsyncExitStack()

    async def start(self) -> None:
        """Open the folder and set the keepers to work. Raises StartError; `finish` and `aclose` then, too."""
        loop = asyncio.get_running_loop()
        for executor in (self._disk, self._writers, self._scrubber):
            self._closing.callback(executor.shutdown)
        self._closing.callback(self._transfers.close)
        try:
            await loop.run_in_executor(self._disk, self._open, loop)
            self._finishing.push_async_callback(self.fills.aclose)
            for keeper in self._keepers:
                self._finishing.push_async_callback(keeper.aclose)
                await keeper.start()
        except (OSError, sqlite3.Error) as error:
            raise StartError(
                f"cannot use the cache folder {self.directory}: {error}. Choose another with [cache] directory, or "
                "PULLTHROUGH_CACHE__DIRECTORY in the environment, or make this one writable for this user."
            ) from error

    async def finish(self) -> None:
        """End what is going on, the fills last; they use upstreams, which close after this."""
        await self._finishing.aclose()

    async def aclose(self) -> None:
        """Close the folder, which is left clean."""
        await self.finish()
        await self._closing.aclose()

    def apply(self, options: CacheOptions) -> None:
        """Go on with these limits of room and age, and this rate of the scrub."""
        self.evictor.limit(options)
        self.scrub.limit(options)

    def sample(self) -> CacheSample:
        """How much the store holds."""
        return CacheSample(self.index.blob_count, self.index.blob_bytes, self.blobs.memory_bytes)

    def _is_in_use(self, digest: Digest) -> bool:
        return digest in self.leases or self.fills.running(digest) is not None

    def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._closing.callback(self._lock.release)
        self.blobs.prepare(alone=self._lock.acquire())
        self._closing.callback(self.index.close)
        self.index.open(loop)
        self.room.open()
        self._lock.share()
