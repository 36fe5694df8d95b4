"""Keeps the index true and small: brings in what was used, and forgets rows that nothing needs any more.

What may be forgotten is old *and* of no use: a link to a blob that we do not hold, a tag whose manifest is gone. Each
of these costs a free HEAD if it is wanted again after all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from typing import Final

from proxy.clock import Clock
from proxy.store.index import Index
from proxy.store.room.usage import Usage

log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 30.0
LAST_FLUSH_SECONDS: Final = 5.0
PRUNE_SECONDS: Final = 86400.0
FORGET_SECONDS: Final = 30 * 86400.0
"""How long what we hold nothing of is remembered."""
FORGET_HISTORY_SECONDS: Final = 365 * 86400.0

_PRUNED_AT: Final = "pruned_at"
_PRUNE: Final = (
    "DELETE FROM links WHERE seen_at < :old AND digest NOT IN (SELECT digest FROM blobs)",
    "DELETE FROM tags WHERE checked_at < :old AND digest NOT IN (SELECT digest FROM blobs)"
    " AND (previous_digest IS NULL OR previous_digest NOT IN (SELECT digest FROM blobs))",
    "DELETE FROM vanished WHERE since < :old AND repository NOT IN (SELECT repository FROM links)",
    "DELETE FROM visibility WHERE checked_at < :old AND repository NOT IN (SELECT repository FROM links)",
    "DELETE FROM history WHERE last_seen < :ancient",
)


class Bookkeeper:
    """A keeper of the open store."""

    def __init__(self, usage: Usage, index: Index, clock: Clock) -> None:
        self._usage = usage
        self._index = index
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Work from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="bookkeeper")

    async def aclose(self) -> None:
        """Write down what is left."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        with contextlib.suppress(TimeoutError):  # Somebody else has the index locked.
            async with asyncio.timeout(LAST_FLUSH_SECONDS):
                await self._usage.flush()

    async def prune(self) -> int:
        """Forget what is old and of no use; returns how many rows. Raises sqlite3.Error."""
        now = self._clock.time()
        times = {"old": now - FORGET_SECONDS, "ancient": now - FORGET_HISTORY_SECONDS}

        def work(connection: sqlite3.Connection) -> int:
            return sum(
                connection.execute(each, {name: times[name] for name in times if f":{name}" in each}).rowcount
                for each in _PRUNE
            )

        forgotten = await self._index.write(work)
        self._index.put_state(_PRUNED_AT, str(now))
        return forgotten

    async def _run(self) -> None:
        while True:
            if self._prune_due():
                await self._prune()
            await asyncio.sleep(FLUSH_SECONDS)
            await self._usage.flush()

    def _prune_due(self) -> bool:
        last = float(self._index.state(_PRUNED_AT) or 0.0)
        return not 0 <= self._clock.time() - last < PRUNE_SECONDS

    async def _prune(self) -> None:
        try:
            forgotten = await self.prune()
        except sqlite3.Error as error:
            log.error("old rows could not be removed from the index: %s", error)
        else:
            log.log(logging.INFO if forgotten else logging.DEBUG, "%d old rows of the index are forgotten", forgotten)
