"""The scrub: reads all that is stored again, in the background and at a bounded rate, and hashes it.

What is bad is set aside; what is missing loses its row, and what the index does not know gets one (`inventory`). Where
it is was written down every few seconds, so that a restart goes on from there; a run begins `scrub_interval` after the
last one began. Only the keeper of the folder scrubs. It reads in a thread of its own, a piece at a time, and past the
page cache (`rehash`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from proxy.clock import Clock
from proxy.config import CacheOptions
from proxy.metrics import Metrics
from proxy.policy.pace import Pace
from proxy.store.blobs import Blobs
from proxy.store.index import Index
from proxy.store.locks import KeeperLock
from proxy.store.scrub.inventory import Folder, Inventory
from proxy.store.scrub.rehash import Rehash
from proxy.store.scrub.run import Run
from proxy.store.threads import in_thread
from proxy.units import format_size

log = logging.getLogger(__name__)

SAVE_SECONDS: Final = 5.0
"""How often it writes down where it is; after a crash it reads again what it has read since."""
LOOK_SECONDS: Final = 60.0
"""How often it looks whether a run is due."""

_MOST_PIECE_BYTES: Final = 1024 * 1024
_LEAST_PIECE_BYTES: Final = 64 * 1024
_PIECES_A_SECOND: Final = 4
_RUN: Final = "scrub"
_FINISHED: Final = "scrub_finished_at"
_INVENTORIED: Final = "inventoried_at"


@dataclass(frozen=True, slots=True)
class ScrubStatus:
    """The run that goes on, or else the last one, by this process. Times since the epoch; `position` from 0 to 1.

    `seconds_left` is what the rest should take, as soon as that can be said. `finished_at` is of the last run that came
    to its end, which need not be this one.
    """

    running: bool
    position: float
    files: int
    bytes: int
    bad: int
    missing: int
    started_at: float | None
    finished_at: float | None
    seconds_left: float | None


class Scrub:
    """A keeper of the open store."""

    def __init__(
        self,
        blobs: Blobs,
        index: Index,
        inventory: Inventory,
        keeper: KeeperLock,
        executor: Executor,
        options: CacheOptions,
        metrics: Metrics,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._blobs = blobs
        self._index = index
        self._inventory = inventory
        self._keeper = keeper
        self._executor = executor
        self._options = options
        self._metrics = metrics
        self._clock = clock
        self._sleep = sleep
        self._run: Run | None = None
        self._saved_at = float("-inf")
        self._awake = asyncio.Event()
        self._walking: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Keep the store from now on."""
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="scrub")

    async def aclose(self) -> None:
        """Stop within a piece, and remember where; the next start goes on from there."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
            self._save()

    def begin(self, rate: int | None) -> None:
        """Begin a whole run now, at so many bytes a second, or (None) as fast as it goes. One that runs is dropped."""
        self._take_up(Run(self._clock.time(), asked=True, rate=rate))
        self._save()
        self._break_off()

    async def cancel(self) -> None:
        """End the run, if one goes on; the next one is due as if this one had come to its end."""
        if self._run is not None and not self._run.ended:
            self._run.ended = True
            walking = self._walking
            self._break_off()
            if walking is not None:
                await asyncio.wait([walking])
            self._save()

    def limit(self, options: CacheOptions) -> None:
        """Another rate and interval from now on."""
        self._options = options
        self._break_off()

    def status(self) -> ScrubStatus:
        """How it is."""
        run = self._run or Run(0.0, ended=True)
        return ScrubStatus(
            running=not run.ended,
            position=run.position,
            files=run.files,
            bytes=run.bytes,
            bad=run.bad,
            missing=run.missing,
            started_at=run.started_at or None,
            finished_at=self.last_finished(),
            seconds_left=run.seconds_left(self._clock.monotonic()),
        )

    def last_finished(self) -> float | None:
        """When a run last came to its end (epoch), as far as this process knows: another may be the keeper."""
        finished_at = self._index.state(_FINISHED) if self._keeper.held else None
        return None if finished_at is None else float(finished_at)

    async def _keep(self) -> None:
        await self._keeper.wait()
        if self._run is None:
            run = Run.parse(self._index.state(_RUN))
            if run is not None:
                self._take_up(run)
        if self._index.state(_INVENTORIED) is None:
            await self._guarded(self._take_inventory())
        while True:
            self._awake.clear()
            if self._is_due():
                self._take_up(Run(self._clock.time()))
                self._save()
            if not (self._may_go() and await self._guarded(self._walk())):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._awake.wait()

    def _take_up(self, run: Run) -> None:
        self._run = run
        run.take_up(self._clock.monotonic())

    def _break_off(self) -> None:
        """Let the keeper look anew what it has to do."""
        self._awake.set()
        if self._walking is not None:
            self._walking.cancel()

    def _is_due(self) -> bool:
        if not self._options.scrub_rate:
            return False
        run = self._run
        return run is None or (
            run.ended and not 0 <= self._clock.time() - run.started_at < self._options.scrub_interval
        )

    def _may_go(self) -> bool:
        return self._run is not None and not self._run.ended and (self._run.asked or self._options.scrub_rate > 0)

    async def _guarded(self, work: Coroutine[None, None, None]) -> bool:
        """Whether the work came to its end, or was broken off to look anew; if it failed, that is said."""
        self._walking = asyncio.get_running_loop().create_task(work, name="scrub run")
        try:
            await asyncio.wait([self._walking])
        finally:
            walking, self._walking = self._walking, None
            walking.cancel()
            await asyncio.wait([walking])
        if walking.cancelled() or walking.exception() is None:
            return True
        error = walking.exception()
        log.error("what is stored cannot be read through: %s", error, exc_info=error if _is_unforeseen(error) else None)
        return False

    async def _take_inventory(self) -> None:
        """Once for an index: it may be a new one beside old files."""
        count = await self._inventory.take_all()
        self._index.put_state(_INVENTORIED, str(self._clock.time()))
        log.log(logging.INFO if count else logging.DEBUG, "the index was compared with the disk: %d blobs", count)

    async def _walk(self) -> None:
        """Read on. Raises OSError and sqlite3.Error if it cannot even be told what there is."""
        run = self._run
        assert run is not None
        rate = run.rate if run.asked else self._options.scrub_rate
        pace = Pace(rate)
        folders = await self._inventory.folders()
        run.algorithms = sorted({folder.algorithm for folder in folders})
        with contextlib.closing(Rehash(self._blobs, _piece_bytes(rate))) as rehash:
            for folder in folders:
                if run.after is None or folder >= Folder.of(run.after):
                    run.advance(folder.algorithm, folder.prefix)
                    await self._take(run, folder, rehash)
                    await self._read(run, rehash, pace)
        self._finish(run)

    async def _take(self, run: Run, folder: Folder, rehash: Rehash) -> None:
        try:
            digests, missing = await self._inventory.take(folder)
        except (OSError, sqlite3.Error) as error:
            log.error("the blobs in %s/%s cannot be looked at: %s", folder.algorithm, folder.prefix, error)
        else:
            run.missing += missing
            rehash.add(digest for digest in digests if run.is_to_come(digest))

    async def _read(self, run: Run, rehash: Rehash, pace: Pace) -> None:
        while rehash:
            piece = await in_thread(self._executor, rehash.read)
            for bad in piece.bad:
                run.bad += await self._blobs.set_aside(bad.digest, bad.status, "scrub", bad.reason)
            run.add(piece.files, piece.bytes, piece.last)
            self._metrics.scrubbed(piece.files, piece.bytes)
            now = self._clock.monotonic()
            if now - self._saved_at >= SAVE_SECONDS:
                self._save()
            pause = pace.spend(piece.cost, now)
            if pause:
                await self._sleep(pause)

    def _finish(self, run: Run) -> None:
        run.position = 1.0
        run.ended = True
        now = str(self._clock.time())
        self._index.put_state(_FINISHED, now)
        self._index.put_state(_INVENTORIED, now)
        self._save()
        self._inventory.report()
        log.log(
            logging.INFO if run.files or run.missing else logging.DEBUG,
            "all that is stored was read again: %d blobs, %s; %d bad, %d missing",
            run.files,
            format_size(run.bytes),
            run.bad,
            run.missing,
        )

    def _save(self) -> None:
        self._saved_at = self._clock.monotonic()
        if self._run is not None and self._keeper.held:
            self._index.put_state(_RUN, self._run.dump())


def _piece_bytes(rate: int | None) -> int:
    """Small enough that a slow scrub goes evenly, and ends soon when it is told to."""
    if rate is None:
        return _MOST_PIECE_BYTES
    return min(_MOST_PIECE_BYTES, max(_LEAST_PIECE_BYTES, rate // _PIECES_A_SECOND))


def _is_unforeseen(error: BaseException | None) -> bool:
    return not isinstance(error, OSError | sqlite3.Error)
