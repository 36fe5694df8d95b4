"""How much blobs may take on disk, and what is taken: `max_size` of our own, and `min_free` of the whole file system.

Taken are the stored blobs, what unfinished fills have left behind, and the claims of those that run. A claim is for all
that its fill will write, made before it writes, so that fills which run together never take more than there is. Counted
are the bytes of the content: neither the index, which is small, nor what a file system adds to a file; what that comes
to is seen by `min_free`.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final, Literal, Protocol

from proxy.config import CacheOptions
from proxy.metrics import RoomSample
from proxy.oci.errors import Unavailable
from proxy.store.index import Index
from proxy.store.room.leftovers import Leftovers
from proxy.store.threads import in_thread

STEP_BYTES: Final = 16 * 1024 * 1024
SMALL_STEP_BYTES: Final = 512 * 1024
"""What is claimed at a time for a blob whose size nobody tells; the smaller one where room is short."""

PATIENCE_SECONDS: Final = 5.0
"""How long room is waited for: a client waits for its headers meanwhile."""

_SLACK_BYTES: Final = 256 * 1024 * 1024
_SLACK_PART: Final = 64
_ROUNDS: Final = 3
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

Reason = Literal["too-large", "no-room", "disk", "locked"]
"""Why a blob is not stored: it is larger than the cache may be; what is there may not go; the disk does not take it, as
when it is full of other things; another process is storing it."""


class NotStored(Unavailable):
    """A blob has no place on disk. Whoever wants it gets it from upstream, past that (`store.fills.passthrough`)."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message, retry_after=5)
        self.reason = reason


class MakesRoom(Protocol):
    """Who evicts."""

    async def make_room(self, wanted: int) -> int:
        """Bytes that were freed, if possible as many as are wanted."""

    def wake(self) -> None:
        """Look soon whether there is still some room to spare."""


class Room:
    """What there is and what is taken, in bytes. Used on the event loop, all but `open`."""

    def __init__(
        self, directory: Path, index: Index, leftovers: Leftovers, executor: Executor, options: CacheOptions
    ) -> None:
        self._directory = directory
        self._index = index
        self._leftovers = leftovers
        self._executor = executor
        self._options = options
        self._total = 0
        self._free = 0
        self._claims: set[Claim] = set()
        self._finished = 0
        """Bytes that finished claims had written and no look at the disk had seen, ever since the start."""
        self._seen_finished = 0

    def open(self) -> None:
        """Look at the disk and at what fills have left on it. Blocking. Raises OSError."""
        self._leftovers.scan()
        self._total, self._free = self._stat()

    def limit(self, options: CacheOptions) -> None:
        """Other limits from now on."""
        self._options = options

    @property
    def max_size(self) -> int | None:
        """What blobs may take at most; None for no limit but the disk's."""
        return self._options.max_size.of(self._total) or None

    @property
    def taken(self) -> int:
        """What counts against `max_size`."""
        return self._index.blob_bytes + self._leftovers.bytes + sum(claim.held for claim in self._claims)

    def sample(self) -> RoomSample:
        """For metrics; the free bytes are those of the last look at the disk."""
        return RoomSample(self.max_size, self._free, self._leftovers.bytes)

    def could_ever_hold(self, size: int) -> bool:
        """Whether a blob of this size would fit if nothing else were there."""
        at_most = self._total - self._min_free
        return size <= (at_most if self.max_size is None else min(at_most, self.max_size))

    def missing(self, more: int) -> int:
        """How many bytes have to go before so many `more` fit; none if that is not above 0."""
        unseen = sum(claim.unseen for claim in self._claims) + self._finished - self._seen_finished
        by_disk = self._min_free + unseen + more - self._free
        return by_disk if self.max_size is None else max(by_disk, self.taken + more - self.max_size)

    @property
    def slack(self) -> int:
        """What is kept to spare, so that not every blob has to wait for room."""
        return min(_SLACK_BYTES, (self.max_size or self._total) // _SLACK_PART)

    async def measure(self) -> None:
        """Look at the disk anew. Raises OSError."""
        written, finished = {claim: claim.written() for claim in self._claims}, self._finished
        self._total, self._free = await in_thread(self._executor, self._stat)
        for claim, seen in written.items():  # From before the look: what came meanwhile counts twice, but never not.
            claim.seen = seen
        self._seen_finished = finished

    def enter(self, claim: Claim) -> None:
        """A claim counts from now on."""
        self._claims.add(claim)

    def leave(self, claim: Claim) -> None:
        """A claim counts no more."""
        self._claims.discard(claim)
        self._finished += max(0, claim.written() - claim.seen)

    @property
    def _min_free(self) -> int:
        return self._options.min_free.of(self._total)

    def _stat(self) -> tuple[int, int]:
        found = os.statvfs(self._directory)
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


class Claim:
    """The room of what is being stored, from its start to its end."""

    def __init__(self, claims: Claims, size: int, written: Callable[[], int]) -> None:
        """Holds `size` bytes that are on disk already; `written` tells how many of its bytes are."""
        self._claims = claims
        self.written = written
        self.seen = self._size = size
        """What of it was on disk at the last look."""
        self._evicted = False

    @property
    def held(self) -> int:
        """Bytes that are its own, written or not."""
        return max(self._size, self.written())

    @property
    def unseen(self) -> int:
        """Those of them that were not on disk at the last look."""
        return max(0, self.held - self.seen)

    async def grow(self, size: int) -> None:
        """Claim the room of a whole blob of this size. Raises NotStored."""
        await self._claims.grow(self, size)
        self._size = size

    async def cover(self, size: int) -> None:
        """Claim room for a blob of unknown size that has come to this one. Raises NotStored."""
        if size <= self._size:
            return
        try:
            await self.grow(size + STEP_BYTES)
        except NotStored:  # Perhaps it ends sooner.
            await self.grow(size + SMALL_STEP_BYTES)

    async def renew(self, error: OSError) -> None:
        """Writing failed: if that was for want of room, make some, but only once. Raises NotStored."""
        if error.errno in _FULL and not self._evicted:
            self._evicted = True
            if await self._claims.evict(max(self.held - self.written(), self._claims.room.slack)):
                return
        raise NotStored("disk", f"the disk of the cache does not take it: {error.strerror}")

    def release(self) -> None:
        """The room is not needed any more, or is counted elsewhere."""
        self._claims.room.leave(self)


class Claims:
    """Gives room to what is to be stored; evicts for it if need be, one after the other."""

    def __init__(self, room: Room, makes_room: MakesRoom) -> None:
        self.room = room
        self._makes_room = makes_room
        self._in_turn = asyncio.Lock()

    def open(self, size: int = 0, written: Callable[[], int] = int) -> Claim:
        """A claim that holds so many bytes to begin with; see `Claim`."""
        claim = Claim(self, size, written)
        self.room.enter(claim)
        return claim

    async def grow(self, claim: Claim, size: int) -> None:
        """Returns, at once and without giving way, when there is room for it. Raises NotStored."""
        room = self.room
        if not room.could_ever_hold(size):
            raise NotStored("too-large", f"a blob of {size} bytes is larger than the cache may be")
        if await self._missing(claim, size) > 0:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS), self._in_turn:
                    await self._make_room(claim, size)
            except TimeoutError:
                raise NotStored("no-room", "to make room takes too long") from None
        if room.missing(size - claim.held + room.slack) > 0:
            self._makes_room.wake()

    async def spare(self, size: int) -> Claim | None:
        """A claim for so many bytes that nobody misses: nothing has to go for it. None if there are not so many."""
        claim = self.open()
        try:
            if await self._missing(claim, size) <= 0:
                await claim.grow(size)
                return claim
        except NotStored:
            pass
        except BaseException:
            claim.release()
            raise
        claim.release()
        return None

    async def evict(self, wanted: int) -> int:
        """Bytes that were freed; none if that takes too long."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._in_turn:
                return await self._makes_room.make_room(wanted)
        except TimeoutError:
            return 0

    async def _make_room(self, claim: Claim, size: int) -> None:
        for _ in range(_ROUNDS):
            missing = await self._missing(claim, size)
            if missing <= 0 or not await self._makes_room.make_room(missing):
                break
        if await self._missing(claim, size) > 0:
            raise NotStored("no-room", "the cache is full of what may not go now")

    async def _missing(self, claim: Claim, size: int) -> int:
        try:
            await self.room.measure()
        except OSError as error:
            raise NotStored("disk", f"the disk of the cache cannot be looked at: {error.strerror}") from error
        return self.room.missing(size - claim.held)
