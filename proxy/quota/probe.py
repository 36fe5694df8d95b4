"""Asks for the quota when nothing was heard of it for a while: with a free HEAD, never with a counted request.

Docker Hub has a repository for that (PROTOCOL 1.5). Another registry is asked only if it has told a limit before, with
a HEAD of what it told that with. Nobody is asked who cannot be asked now: there would be no answer, and no hurry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from proxy.clock import Clock
from proxy.oci.errors import RegistryError
from proxy.oci.names import DOCKER_HUB
from proxy.policy.quota import Gate
from proxy.policy.quota.account import Account

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
FIRST_SECONDS: Final = 10.0
"""How long after the start the first one is sent, if nothing was ever heard."""
JITTER: Final = 0.1


class Probed(Protocol):
    """An upstream, as far as this goes."""

    @property
    def name(self) -> str: ...

    @property
    def account(self) -> Account: ...

    def breaker_open_for(self) -> float | None: ...

    async def probe(self) -> None: ...


class Prober:
    """A keeper. `upstreams` are those in use now; `interval` in seconds, 0 for never."""

    def __init__(self, upstreams: Callable[[], Iterable[Probed]], interval: Callable[[], float], clock: Clock) -> None:
        self._upstreams = upstreams
        self._interval = interval
        self._clock = clock
        self._started_at = clock.monotonic()
        self._asked_at: dict[Account, float] = {}
        self._jitter = random.uniform(1 - JITTER, 1 + JITTER)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Work from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="quota probe")

    async def aclose(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def look(self) -> None:
        """Ask whoever is due."""
        for upstream in tuple(self._upstreams()):
            if self._is_due(upstream):
                self._asked_at[upstream.account] = self._clock.monotonic()
                self._jitter = random.uniform(1 - JITTER, 1 + JITTER)
                try:
                    await upstream.probe()
                except RegistryError as error:
                    log.info("the quota of %s could not be asked for: %s", upstream.name, error.message)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    def _is_due(self, upstream: Probed) -> bool:
        account, now, interval = upstream.account, self._clock.monotonic(), self._interval() * self._jitter
        if not interval or not (upstream.name == DOCKER_HUB or account.subject is not None):
            return False
        if upstream.breaker_open_for() is not None or account.limits.closed_for(Gate.REQUESTS, now) is not None:
            return False
        if account.last_heard is None and account not in self._asked_at:
            return now - self._started_at >= min(interval, FIRST_SECONDS)
        heard = float("-inf") if account.last_heard is None else account.last_heard
        return now - max(self._asked_at.get(account, float("-inf")), heard) >= interval
