"""Looks every few seconds whether there is something to tell, and tells it: a keeper.

One task does both, one after the other, so that nothing is ever told twice at a time and nobody else waits for it. What
could not be told stays due on the board. Until the receiver is asked again there is a pause that doubles, or as long as
it wants itself. Of several processes on one folder only the one that keeps it in order tells anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Final, Protocol

from proxy.clock import Clock
from proxy.config import WebhookOptions
from proxy.metrics import Metrics
from proxy.policy.alerts import Alert, Board, Facts
from proxy.webhook.messages import MOST, body
from proxy.webhook.receiver import Undelivered, send

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
LAST_SECONDS: Final = 5.0
"""How long the end of the process waits for what is still to be told."""
FIRST_PAUSE_SECONDS: Final = 5.0
MAX_PAUSE_SECONDS: Final = 300.0
MAX_ASKED_PAUSE_SECONDS: Final = 3600.0
JITTER: Final = 0.25
_STATE: Final = "alerts"


class Notes(Protocol):
    """Where what outlives the process is kept: `store.index`."""

    def state(self, name: str) -> str | None: ...

    def put_state(self, name: str, value: str) -> None: ...


class Keeper:
    """Tells what is wrong, by `facts`. `is_keeper` is whether this process keeps the folder in order."""

    def __init__(
        self,
        options: WebhookOptions,
        instance: str,
        facts: Callable[[], Facts],
        notes: Notes,
        is_keeper: Callable[[], bool],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._options = options
        self._instance = instance
        self._facts = facts
        self._notes = notes
        self._is_keeper = is_keeper
        self._metrics = metrics
        self._clock = clock
        self._board: Board | None = None
        self._was_on = options.enabled
        self._kept: str | None = None
        self._dropped = 0
        self._failures = 0
        self._not_before = float("-inf")
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Work from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="webhook")

    async def aclose(self) -> None:
        """Try once more to tell what is due, and end."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=LAST_SECONDS)
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def apply(self, options: WebhookOptions) -> None:
        """Go on with these settings: what was not taken so far is tried at once, since the URL may be another."""
        self._failures, self._not_before = 0, float("-inf")
        if self._board is not None:
            self._board.hurry(self._clock.monotonic())
        self._options = options

    async def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                await self.turn()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._stopping.wait()
            self._not_before = float("-inf")
            await self.turn()
        finally:
            self._keep()

    async def turn(self) -> None:
        """Look once, and tell what is due."""
        try:
            if self._look():
                await self._tell()
        except Exception:  # A mistake of ours must not end what tells of mistakes.
            log.exception("the webhook could not look after its alerts")
        self._keep()

    def _look(self) -> bool:
        """Whether there may be something to tell."""
        if not self._options.enabled:
            self._was_on = False
            return False
        if not self._is_keeper():
            return False
        now, time, facts = self._clock.monotonic(), self._clock.time(), self._facts()
        if self._board is None:
            self._board, self._kept = Board(), self._notes.state(_STATE)
            self._board.restore(self._kept, now, time)
        if not self._was_on:
            self._was_on = True
            self._board.take_for_granted(facts)
        self._board.look(facts, now, time, self._options.ignore)
        self._metrics.webhook_told("dropped", self._board.dropped - self._dropped)
        self._dropped = self._board.dropped
        return True

    async def _tell(self) -> None:
        """Message after message, until all that is due now is told or one does not arrive."""
        assert self._board is not None
        if self._clock.monotonic() < self._not_before:
            return
        due = self._board.due(self._clock.monotonic(), self._options.repeat)
        for alerts in (due[first : first + MOST] for first in range(0, len(due), MOST)):
            try:
                said = await send(self._options, body(self._options.format, alerts, self._instance), self._clock)
            except Undelivered as error:
                self._failed(alerts, error)
                break
            self._board.told(alerts, self._clock.monotonic(), self._clock.time())
            self._metrics.webhook_told("delivered", len(alerts))
            self._failures = 0
            log.info("the webhook was told of %s: %s", _names(alerts), said)

    def _failed(self, alerts: list[Alert], error: Undelivered) -> None:
        assert self._board is not None
        now = self._clock.monotonic()
        given_up = self._board.failed(alerts, now, hopeless=error.hopeless)
        self._metrics.webhook_told("failed", given_up)
        pause = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**self._failures)
        self._failures += 1
        pause = max(pause, min(error.retry_after or 0.0, MAX_ASKED_PAUSE_SECONDS))
        self._not_before = now + pause * (1 + JITTER * random.random())
        level = logging.ERROR if given_up else logging.WARNING
        outcome = f"{given_up} of them given up" if given_up else f"again in {pause:.0f} s"
        log.log(level, "the webhook was not told of %s: %s; %s", _names(alerts), error, outcome)

    def _keep(self) -> None:
        """Have what stands outlive the process."""
        if self._board is None:
            return
        state = self._board.state()
        if state != self._kept:
            self._kept = state
            self._notes.put_state(_STATE, state)


def _names(alerts: list[Alert]) -> str:
    return ", ".join(sorted({alert.name for alert in alerts}))
