"""Lets counted pulls through while there is plenty, and as it runs out has them answered from what is held, or wait.

What to do is decided in `policy.quota.governor`. Who waits does so in a fair queue, and only if something may come back
in time: as soon as upstream says, for free, that there is some, as many go on as there is for. Who has waited in vain
gets 429, and is told when the window is expected to give something back.

One governor serves all generations: `rules` are those of the one that answers now.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from proxy.clock import Clock
from proxy.metrics import Metrics
from proxy.oci.errors import RegistryError, TooManyRequests
from proxy.oci.names import Repository
from proxy.policy.quota import Gate
from proxy.policy.quota.account import Account
from proxy.policy.quota.governor import Decision, Level, Rules
from proxy.policy.quota.purpose import Purpose
from proxy.quota.events import Events
from proxy.quota.queue import FairQueue

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.25
"""How often those who wait are looked after."""
ASK_SECONDS: Final = 2.0
"""How old the word of upstream may be while somebody waits."""
RECENT_SECONDS: Final = 10.0
"""How old it may be for a decision that is not a friendly one."""
QUIET_SECONDS: Final = 300.0
"""After so long without a refusal the next one is news again."""

Said = Literal["pass", "saved", "stretched", "waited", "refused"]
Ask = Callable[[], Awaitable[object]]
"""A free question to upstream, of which its answer tells the quota."""


class Governor:
    """Decides, for all accounts. Used on the event loop."""

    def __init__(self, rules: Rules, events: Events, metrics: Metrics, clock: Clock) -> None:
        self.rules = rules
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._queues: dict[Account, FairQueue] = {}
        self._tending: dict[Account, asyncio.Task[None]] = {}
        self._refused_at: dict[Account, float] = {}
        self._decisions: dict[str, dict[Said, int]] = {}

    async def aclose(self) -> None:
        """Look after nobody any more."""
        tasks = list(self._tending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def level(self, account: Account) -> Level:
        """How much is left."""
        return account.level(self.rules, self._clock.monotonic())

    def waiting(self, account: Account) -> int:
        """How many wait for quota."""
        return len(self._queues.get(account, ()))

    def decisions(self, upstream: str) -> dict[Said, int]:
        """What was decided since the start, and how often."""
        said: tuple[Said, ...] = ("pass", "saved", "stretched", "waited", "refused")
        return dict.fromkeys(said, 0) | self._decisions.get(upstream, {})

    def window(self, account: Account, repository: Repository, configured: float) -> float:
        """For how many seconds a tag is answered without asking, now."""
        level = self.level(account)
        if level is Level.PLENTY:
            return configured
        return self.rules.window(configured, level, self.rules.priority(repository))

    def stretched(self, account: Account) -> None:
        """A tag was answered without asking, thanks to a window that is longer than configured."""
        self._count(account, "stretched")

    def saves(self, account: Account, repository: Repository) -> bool:
        """Whether a tag that has changed is answered with what we hold, though something is left."""
        level = self.level(account)
        if level in (Level.PLENTY, Level.EXHAUSTED):
            return False  # What is exhausted is upstream's refusal, and told as that.
        return self.rules.decide(level, self.rules.priority(repository), "changed") is Decision.SAVE

    def saved(self, account: Account) -> None:
        """It was."""
        self._count(account, "saved")

    def decide(self, account: Account, repository: Repository, purpose: Purpose) -> Decision:
        """What would be done about this pull now.

        That nothing is left is upstream's to say: until it has refused a pull, and so closed the gate, it is asked.
        """
        level = self.level(account)
        if level is Level.EXHAUSTED and not self._is_closed(account):
            return Decision.PASS
        return self.rules.decide(level, self.rules.priority(repository), purpose.need)

    async def admit(
        self, account: Account, repository: Repository, purpose: Purpose, ask: Ask, *, patient: bool = True
    ) -> bool:
        """Returns when this pull may be made, and whether it had to wait. Raises TooManyRequests.

        Who is not `patient` has another way to get it, and does not wait; its refusal is nobody's yet.
        """
        decision = self.decide(account, repository, purpose)
        if decision is not Decision.PASS and self._is_old(account, RECENT_SECONDS):
            with contextlib.suppress(RegistryError):
                await ask()
            decision = self.decide(account, repository, purpose)
        if decision is Decision.PASS:
            self._count(account, "pass")
            return False
        last = patient and purpose.need != "changed"
        if last and await self._wait(account, repository, purpose, ask):
            self._count(account, "waited")
            return True
        raise self._refusal(account, last=last)

    def would_wait(self, account: Account) -> bool:
        """Whether waiting for quota has any sense: something may come back before the patience of clients ends."""
        soonest = self._soonest(account)
        return self.rules.wait > 0 and (soonest is None or soonest <= self.rules.wait)

    async def _wait(self, account: Account, repository: Repository, purpose: Purpose, ask: Ask) -> bool:
        if not self.would_wait(account):
            return False
        queue = self._queues.setdefault(account, FairQueue())
        place = queue.wait(purpose.asker.address, self.rules.priority(repository), self.rules.wait)
        if account not in self._tending:
            tending = asyncio.get_running_loop().create_task(self._tend(account, queue, ask), name=f"tend {account!r}")
            self._tending[account] = tending
            tending.add_done_callback(lambda _: self._tending.pop(account))
        return await place

    async def _tend(self, account: Account, queue: FairQueue, ask: Ask) -> None:
        """Ask now and then, and let go on whom there is quota for, until nobody waits."""
        used = True
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not len(queue):
                return
            if self._is_closed(account):
                continue
            if used or self._is_old(account, ASK_SECONDS):
                with contextlib.suppress(RegistryError):
                    await ask()
            used = self._release(account, queue)

    def _release(self, account: Account, queue: FairQueue) -> bool:
        """Whether anybody was let go: then what is left is to be asked for again."""
        level, rules, quota = self.level(account), self.rules, account.limits.quota
        spare = 1
        if quota is not None and quota.remaining is not None:
            kept = rules.reserve * (quota.limit or 0) if rules.important else 0
            spare = max(1, int(quota.remaining - kept))
        released = 0
        while released < spare and queue.release(lambda each: rules.decide(level, each, "cold") is Decision.PASS):
            released += 1
        return released > 0

    def _is_old(self, account: Account, seconds: float) -> bool:
        """Whether upstream's word is older than that, and it may be asked for another one."""
        now = self._clock.monotonic()
        if self._is_closed(account):
            return False
        return account.last_heard is None or now - account.last_heard > seconds

    def _is_closed(self, account: Account) -> bool:
        return account.limits.pulls_refused_for(self._clock.monotonic()) is not None

    def _soonest(self, account: Account) -> float | None:
        """The seconds until something may come back; None where that is not known."""
        now = self._clock.monotonic()
        closed = account.limits.pulls_refused_for(now)
        if closed is not None:
            return closed
        returns_at = account.forecast(now).returns_at
        return None if returns_at is None else max(0.0, returns_at - now)

    def _refusal(self, account: Account, *, last: bool) -> TooManyRequests:
        now, quota, name = self._clock.monotonic(), account.limits.quota, account.upstream
        what = f"the pull limit of {name} is reached"
        if self.level(account) is not Level.EXHAUSTED and quota is not None:
            what = f"{quota.remaining} of {quota.limit} pulls of {name} are left, and kept for other repositories,"
        if last:
            self._count(account, "refused")
            if now - self._refused_at.get(account, float("-inf")) > QUIET_SECONDS:
                self._events.note(name, "refused", f"{what.rstrip(',')}: what is not cached is refused")
            self._refused_at[account] = now
        return TooManyRequests(f"{what} and this is not cached", retry_after=self.retry_after(account))

    def retry_after(self, account: Account, error: TooManyRequests | None = None) -> float | None:
        """When asking again makes sense: what upstream said, else what the window is expected to do, else what was said
        by `error`, or how long the gate is closed."""
        now, limits = self._clock.monotonic(), account.limits
        closed = limits.pulls_refused_for(now)
        told = error.retry_after if error is not None else closed
        if limits.closed_for(Gate.REQUESTS, now) is not None or (closed is not None and limits.was_told(Gate.PULLS)):
            return told
        expected = account.forecast(now)
        when = expected.returns_at
        if when is None and told is None:
            when = expected.returns_latest
        return told if when is None else max(1.0, when - now)

    def _count(self, account: Account, said: Said) -> None:
        counts = self._decisions.setdefault(account.upstream, {})
        counts[said] = counts.get(said, 0) + 1
        self._metrics.governor_decision(account.upstream, said)
