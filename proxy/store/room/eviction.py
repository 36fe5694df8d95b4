"""Makes room: removes what was used longest ago (`policy.eviction`), and what is too old.

One task does it, in pieces, so that neither the event loop nor a request ever waits for more than one of them. Only the
keeper of the folder evicts (`store.locks`): another process that shares it would not know what is in use here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from proxy.clock import Clock
from proxy.config import CacheOptions
from proxy.metrics import Metrics
from proxy.oci.names import Digest
from proxy.policy.eviction import GOES, Candidate, Rules, Verdict, choose
from proxy.store.index import Index
from proxy.store.room import Room
from proxy.store.room.candidates import candidates
from proxy.store.room.leftovers import Leftovers
from proxy.store.room.removal import Removal
from proxy.store.room.usage import Usage
from proxy.units import format_size

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 30.0
"""How often it looks by itself."""
FRUITLESS_SECONDS: Final = 5.0
"""How long nothing is looked for after too little was found, unless something has changed since."""


class Turn(Protocol):
    """Whether this process is the one that evicts."""

    @property
    def held(self) -> bool: ...

    async def wait(self) -> None:
        """Returns once it is."""


@dataclass(slots=True)
class Plan:
    """What a round would do. `verdicts` are the first ones only; the counts and bytes are of all."""

    verdicts: list[tuple[Candidate, Verdict]] = field(default_factory=list)
    blobs: Counter[Verdict] = field(default_factory=Counter)
    bytes: Counter[Verdict] = field(default_factory=Counter)
    leftovers: int = 0
    leftover_bytes: int = 0


@dataclass(slots=True, eq=False)
class _Demand:
    """Somebody waits for room, or for the end of a round."""

    wanted: int
    answer: asyncio.Future[int]
    freed: int = 0
    until_the_end: bool = False

    def end(self) -> None:
        if not self.answer.done():
            self.answer.set_result(self.freed)


class Evictor:
    """A keeper of the open store. `in_use` says which blobs may not go now."""

    def __init__(
        self,
        room: Room,
        leftovers: Leftovers,
        removal: Removal,
        index: Index,
        usage: Usage,
        in_use: Callable[[Digest], bool],
        turn: Turn,
        options: CacheOptions,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._room = room
        self._leftovers = leftovers
        self._removal = removal
        self._index = index
        self._usage = usage
        self._in_use = in_use
        self._turn = turn
        self._rules = Rules(options.grace, options.max_age)
        self._metrics = metrics
        self._clock = clock
        self._demands: list[_Demand] = []
        self._awake = asyncio.Event()
        self._fruitless_until = float("-inf")
        self._in_the_way: list[Digest] = []
        """What the last round left because it was in use."""
        self._stored_then = 0
        self._complained = False
        self._task: asyncio.Task[None] | None = None

    def limit(self, options: CacheOptions) -> None:
        """Other limits from now on."""
        self._rules = Rules(options.grace, options.max_age)
        self._room.limit(options)
        self._fruitless_until = float("-inf")
        self.wake()

    async def start(self) -> None:
        """Work from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="evictor")

    async def aclose(self) -> None:
        """End; whoever waits is told what was freed."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._end(self._demands)

    def wake(self) -> None:
        """Look soon whether there is still some room to spare."""
        self._awake.set()

    async def make_room(self, wanted: int) -> int:
        """Bytes that were freed, if possible as many as are wanted. Returns as soon as they are."""
        if self._is_fruitless():
            return 0
        freed = await self._demand(wanted)
        self._complain(wanted - freed)
        return freed

    async def collect(self) -> int:
        """Bring the store within its limits and drop what is too old, now; returns the bytes that were freed."""
        return await self._demand(0, until_the_end=True)

    async def plan(self, most: int) -> Plan:
        """What `collect` would remove, and what it would not although that is old enough or in the way: at most so many
        of them, by last use. Raises OSError and sqlite3.Error."""
        await self._room.measure()
        wanted = self._room.missing(self._room.slack)
        plan = Plan()
        plan.leftovers, plan.leftover_bytes = self._leftovers.droppable(wanted, self._oldest())
        await self._catch_up()
        async for piece in self._chosen(wanted - plan.leftover_bytes, everything=True):
            for candidate, verdict in piece:
                plan.blobs[verdict] += 1
                plan.bytes[verdict] += candidate.size
            plan.verdicts += piece[: most - len(plan.verdicts)]
        return plan

    async def _demand(self, wanted: int, *, until_the_end: bool = False) -> int:
        if self._task is None or not self._turn.held:
            return 0
        demand = _Demand(wanted, asyncio.get_running_loop().create_future(), until_the_end=until_the_end)
        self._demands.append(demand)
        self._awake.set()
        try:
            return await demand.answer
        finally:
            self._demands.remove(demand)

    async def _run(self) -> None:
        await self._turn.wait()
        while True:
            self._awake.clear()
            demands = list(self._demands)
            try:
                if demands or not self._is_fruitless():
                    await self._round()
            except OSError as error:
                log.error("the disk of the cache cannot be looked at: %s", error)
            except Exception:
                log.exception("making room failed in a way that should not happen")
            self._end(demands)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._awake.wait()

    async def _round(self) -> None:
        await self._room.measure()
        demanded = sum(demand.wanted - demand.freed for demand in self._demands if not demand.until_the_end)
        wanted = max(demanded, self._room.missing(self._room.slack))
        count, freed = await self._leftovers.drop(wanted, self._oldest())
        self._metrics.evicted("leftover", count, freed)
        self._freed(freed)
        removed: Counter[Verdict] = Counter()
        self._in_the_way.clear()
        self._stored_then = self._removal.stored_count
        try:
            if freed < wanted or self._rules.max_age:
                await self._catch_up()
                async for piece in self._chosen(wanted - freed):
                    self._in_the_way += [each.digest for each, verdict in piece if verdict == "in use"]
                    freed += await self._remove(piece, removed)
        except sqlite3.Error as error:
            log.error("the index does not tell what could be evicted: %s", error)
        if freed < wanted:
            self._fruitless_until = self._clock.monotonic() + FRUITLESS_SECONDS
        if count or removed:
            what = ", ".join(f"{number} for {verdict}" for verdict, number in removed.items()) or "none"
            log.info("made %s of room: blobs evicted: %s; partial files: %d", format_size(freed), what, count)

    async def _catch_up(self) -> None:
        """Have the index tell the uses and the blobs of the last moments too; on a full disk it cannot."""
        await self._usage.flush()
        with contextlib.suppress(sqlite3.Error):
            await self._index.write(lambda _: None, remember=True)

    def _is_fruitless(self) -> bool:
        if self._clock.monotonic() >= self._fruitless_until or not all(map(self._in_use, self._in_the_way)):
            return False
        return self._rules.grace > 0 or self._removal.stored_count == self._stored_then  # What is new is protected.

    async def _remove(self, piece: list[tuple[Candidate, Verdict]], removed: Counter[Verdict]) -> int:
        """Bytes that were freed. Raises sqlite3.Error."""
        goes = {each.digest: (each.size, verdict) for each, verdict in piece if verdict in GOES}
        if not goes:
            return 0
        gone, size = Counter[Verdict](), Counter[Verdict]()
        for digest in await self._removal.remove(list(goes)):
            of_it, verdict = goes[digest]
            gone[verdict] += 1
            size[verdict] += of_it
        for verdict, count in gone.items():
            self._metrics.evicted(verdict, count, size[verdict])
        removed.update(gone)
        self._freed(size.total())
        return size.total()

    async def _chosen(self, wanted: int, *, everything: bool = False) -> AsyncIterator[list[tuple[Candidate, Verdict]]]:
        """Verdicts in pieces, manifests last; without `everything` only on what might go. Raises sqlite3.Error."""
        now, grace = self._clock.time(), self._rules.grace
        without = None if everything else (now - grace, now + grace)
        for manifest in (False, True):
            async with contextlib.aclosing(candidates(self._index, manifest=manifest, without=without)) as pieces:
                async for piece in pieces:
                    chosen = list(choose(map(self._as_it_is_now, piece), wanted, now, self._rules))
                    wanted -= sum(candidate.size for candidate, verdict in chosen if verdict in GOES)
                    yield chosen
                    if len(chosen) < len(piece):
                        break

    def _as_it_is_now(self, candidate: Candidate) -> Candidate:
        """With what the index cannot know."""
        if self._in_use(candidate.digest):
            return replace(candidate, in_use=True)
        return replace(candidate, used_at=self._clock.time()) if candidate.digest in self._usage else candidate

    def _freed(self, freed: int) -> None:
        """Tell those who wait for it, in their order."""
        for demand in self._demands:
            if demand.until_the_end:
                demand.freed += freed
                continue
            part = min(freed, demand.wanted - demand.freed)
            demand.freed += part
            freed -= part
            if demand.freed == demand.wanted:
                demand.end()

    def _end(self, demands: list[_Demand]) -> None:
        for demand in demands:
            demand.end()

    def _oldest(self) -> float:
        """Partial files of before are too old."""
        return self._clock.time() - self._rules.max_age if self._rules.max_age else 0.0

    def _complain(self, missing: int) -> None:
        if missing > 0 and not self._complained:
            log.warning(
                "the cache is full of what is in use, is pinned or was used in the last %g s ([cache] grace); until "
                "that changes, new blobs are passed through without being stored",
                self._rules.grace,
            )
        self._complained = missing > 0
