"""Notices what changes by itself, a few times a minute, and says so: levels, refusals, and who else uses an account."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from typing import Final

from proxy.clock import Clock
from proxy.policy.quota import Gate
from proxy.policy.quota.account import Account
from proxy.policy.quota.governor import Level
from proxy.quota.books import Books
from proxy.quota.events import Events, Kind
from proxy.quota.governor import Governor

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Known:
    """How an account was when it was last looked at."""

    level: Level = Level.PLENTY
    refusals: dict[Gate, int] = field(default_factory=lambda: dict.fromkeys(Gate, 0))
    suspected: bool = False


class Watch:
    """A keeper."""

    def __init__(self, books: Books, governor: Governor, events: Events, clock: Clock) -> None:
        self._books = books
        self._governor = governor
        self._events = events
        self._clock = clock
        self._known: dict[Account, _Known] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Work from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="watch over quotas")

    async def aclose(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self.look()

    def take_for_granted(self) -> None:
        """What accounts are like now is no news: an earlier process has said it."""
        for account in self._books:
            now = self._clock.monotonic()
            self._known[account] = _Known(self._governor.level(account), suspected=account.leak.is_suspected(now))

    def look(self) -> None:
        """Look at every account once."""
        for account in self._books:
            known = self._known.setdefault(account, _Known())
            self._look_at_refusals(account, known)
            self._look_at_level(account, known)
            self._look_for_others(account, known)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def _look_at_refusals(self, account: Account, known: _Known) -> None:
        now, name = self._clock.monotonic(), account.upstream
        for gate, count in account.limits.refusals.items():
            if count > known.refusals[gate]:
                known.refusals[gate] = count
                left = account.limits.closed_for(gate, now) or 0.0
                kind: Kind = "limited" if gate is Gate.PULLS else "abuse"
                limit = "pull limit" if gate is Gate.PULLS else "request limit"
                self._events.note(
                    name, kind, f"the {limit} of {name} is reached: nothing of that kind for {left:.0f} s"
                )

    def _look_at_level(self, account: Account, known: _Known) -> None:
        level, quota, name = self._governor.level(account), account.limits.quota, account.upstream
        if level is known.level:
            return
        left = "how much is left is not known"
        if quota is not None and quota.remaining is not None:
            left = f"{quota.remaining} pulls" if quota.limit is None else f"{quota.remaining} of {quota.limit} pulls"
            left += " are left"
        text = f"{name}: {left}: the quota is {level.word} now (was {known.level.word})"
        log.log(logging.WARNING if level > known.level else logging.INFO, "%s", text)
        self._events.note(name, "level", text)
        known.level = level

    def _look_for_others(self, account: Account, known: _Known) -> None:
        now = self._clock.monotonic()
        suspected = account.leak.is_suspected(now)
        if suspected and not known.suspected:
            whose = f"the account {account.user}" if account.user else "this address"
            pulls = account.leak.unexplained(now)
            text = f"{account.upstream}: {pulls} pulls were not made by this cache: somebody else uses {whose}"
            log.warning("%s", text)
            self._events.note(account.upstream, "bypass", text)
        known.suspected = suspected
