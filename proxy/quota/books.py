"""What is known of every account, and how it outlives the process: a keeper of the open store.

In memory times are on the monotonic clock, on disk they are seconds since the epoch: a clock that is stepped while we
run changes nothing, and what was written by one that was wrong is left out if it is of the future.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from typing import Final

from proxy.clock import Clock
from proxy.policy.quota.account import Account
from proxy.policy.quota.ledger import KEPT_SECONDS
from proxy.quota import rows
from proxy.quota.events import KEPT, Events
from proxy.quota.rows import Moments
from proxy.quota.traffic import Traffic
from proxy.store.index import Index
from proxy.store.index.ledger import Batch, Kept, LedgerFile

log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 2.0
LAST_FLUSH_SECONDS: Final = 2.0
"""How long the end of the process waits for the last of it."""
TRAFFIC_SECONDS: Final = 30.0
PRUNE_SECONDS: Final = 6 * 3600.0


class Books:
    """The accounts of all upstreams, whichever generation uses them. Used on the event loop."""

    def __init__(
        self,
        index: Index,
        file: LedgerFile,
        events: Events,
        traffic: Traffic,
        clock: Clock,
        also: Callable[[], None],
    ) -> None:
        """`also` is done whenever what went to clients is brought to disk."""
        self._also = also
        self._index = index
        self._file = file
        self._events = events
        self._traffic = traffic
        self._clock = clock
        self._accounts: dict[tuple[str, str | None], Account] = {}
        self._loaded: set[Account] = set()
        self._states: dict[Account, str] = {}
        self._served_at = self._pruned_at = clock.monotonic()
        self._task: asyncio.Task[None] | None = None

    def __iter__(self) -> Iterator[Account]:
        return iter(tuple(self._accounts.values()))

    def account(self, upstream: str, user: str | None) -> Account:
        """What is known of this account at this upstream."""
        account = self._accounts.get((upstream, user))
        if account is None:
            account = self._accounts[upstream, user] = Account(upstream, user)
        return account

    def pulls(self, upstream: str) -> int:
        """The counted pulls from this upstream since the start, whichever account made them."""
        return sum(account.pulls for account in self if account.upstream == upstream)

    async def start(self) -> None:
        """Work from now on."""
        await self._remember_events()
        await self.load()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="books")

    async def aclose(self) -> None:
        """Write down what is left."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        with contextlib.suppress(TimeoutError):  # Somebody else has the index locked.
            async with asyncio.timeout(LAST_FLUSH_SECONDS):
                await self.flush(everything=True)

    async def flush(self, *, everything: bool = False) -> None:
        """Bring what is new to disk; what went to clients only now and then. What cannot be written is kept."""
        await self.load()
        now = Moments.of(self._clock)
        batch = Batch(events=self._events.take_unsaved())
        taken = [(account, *account.ledger.take_unsaved()) for account in self]
        for account, observations, spends in taken:
            batch.observations += [rows.observation_row(account, each, now) for each in observations]
            batch.pulls += [rows.pull_row(account, each, now) for each in spends]
            self._put_state(account, now)
        if everything or now.monotonic - self._served_at >= TRAFFIC_SECONDS:
            self._served_at = now.monotonic
            batch.served = self._traffic.take()
            self._also()
        if not batch:
            return
        try:
            await self._file.add(batch)
        except sqlite3.Error as error:
            log.error("the books of the quota could not be written: %s", error)
            self._events.give_back(batch.events)
            for account, observations, spends in taken:
                account.ledger.give_back(observations, spends)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()
            if self._clock.monotonic() - self._pruned_at >= PRUNE_SECONDS:
                self._pruned_at = self._clock.monotonic()
                with contextlib.suppress(sqlite3.Error):
                    await self._file.prune(self._clock.time())

    async def _remember_events(self) -> None:
        try:
            self._events.remember(await self._file.events(KEPT, self._clock.time()))
        except sqlite3.Error as error:
            log.error("earlier events cannot be read: %s", error)

    async def load(self) -> None:
        """What earlier processes wrote of accounts that are new to us."""
        for account in self:
            if account in self._loaded:
                continue
            self._loaded.add(account)
            now = self._clock.time()
            try:
                kept = await self._file.kept(account.upstream, account.name, now - KEPT_SECONDS, now)
            except sqlite3.Error as error:
                log.error("the books of %r cannot be read: %s", account, error)
                continue
            self._remember(account, kept)

    def _remember(self, account: Account, kept: Kept) -> None:
        now = Moments.of(self._clock)
        observations = [rows.observation(each, now) for each in kept.observations]
        spends = [rows.spend(each, now) for each in kept.pulls]
        account.remember(observations, spends, kept.fetched, now.monotonic)
        rows.restore_state(account, self._index.state(_state_name(account)), now)

    def _put_state(self, account: Account, now: Moments) -> None:
        text = rows.state_text(account, now)
        if text != self._states.get(account, rows.NO_STATE):
            self._states[account] = text
            self._index.put_state(_state_name(account), text)


def _state_name(account: Account) -> str:
    return f"quota {account.upstream} {account.name}"
