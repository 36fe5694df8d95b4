"""Every question to one upstream passes here: so many at a time, each within its bound, none while the breaker is open.

A question is one verb of `client.Upstream` with all that it takes: tokens, redirects, a second try. It takes one place
for all of that, and what it waits for takes none: a token exchange is shared by questions, so one that waited for a
place could wait for those that wait for it. Blob openings take none either (`transfers` limits those), and pass an open
breaker: a fill has few attempts, with pauses of its own, and nowhere else to go in mid-blob.

What counts against the breaker is that the registry, or its token server, gave no answer to a question. Trouble behind
a redirect does not: a registry whose CDN is ill still tells where tags point, so the redirect itself counts as its
answer. Nor do failed openings: a fill repeats them, and one ill blob must not close the door to all manifests.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from proxy.clock import Clock
from proxy.config import UpstreamOptions
from proxy.metrics import Metrics
from proxy.oci.errors import RegistryError, Unavailable
from proxy.policy.breaker import Breaker
from proxy.upstream.failures import Unasked, bounded

log = logging.getLogger(__name__)


class Questions:
    """The questions to one upstream."""

    def __init__(self, options: UpstreamOptions, metrics: Metrics, clock: Clock) -> None:
        self._upstream = options.name
        self._places = asyncio.Semaphore(options.requests) if options.requests else None
        self._breaker = Breaker()
        self._last_failure = ""
        self._metrics = metrics
        self._clock = clock
        metrics.breaker_open(self._upstream, False)

    def breaker_open_for(self) -> float | None:
        """The seconds for which upstream is not asked, 0 when the next question is a probe; None while it is asked."""
        return self._breaker.open_for(self._clock.monotonic())

    @asynccontextmanager
    async def ask(self) -> AsyncIterator[None]:
        """One question, from its turn to its outcome. Raises Unavailable: at once while upstream is not asked, and for
        whatever foreign exception ends the question."""
        self._check()
        probe: bool | None = None  # None: not asked yet, so that its end says nothing of upstream.
        try:
            async with bounded(self._upstream), self._places or nullcontext():
                self._check()
                probe = self._breaker.admit()
                yield
        except Unasked as error:
            if probe is not None:
                self._failed(error, probe=probe)
            raise
        except RegistryError:
            if probe is not None:
                self.answered()
            raise
        except BaseException:
            self._breaker.left(probe=bool(probe))
            raise
        self.answered()

    def answered(self) -> None:
        """The registry has answered something."""
        if self._breaker.is_open:
            log.info("%s answers again", self._upstream)
            self._metrics.breaker_open(self._upstream, False)
        self._breaker.answered()

    def _check(self) -> None:
        wait = self._breaker.refuses(self._clock.monotonic())
        if wait is not None:
            raise Unavailable(self._last_failure, retry_after=wait)

    def _failed(self, error: Unasked, *, probe: bool) -> None:
        now, was_open = self._clock.monotonic(), self._breaker.is_open
        self._breaker.failed(now, random.random(), probe=probe)
        self._last_failure = error.message
        if self._breaker.is_open and not was_open:
            log.warning("%s is left alone for a while, since it cannot be asked: %s", self._upstream, error.message)
            self._metrics.breaker_open(self._upstream, True)
