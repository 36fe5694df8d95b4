"""Answers that are given again and again: each is one more in a sum.

The sums are handed on a few times a second, and before anybody reads the figures that they belong to: `settle`. They
are plain values, so that they may go to another process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from proxy.oci.names import Digest, Repository
from proxy.policy.quota.purpose import Asker
from proxy.server.access_log import Exchange

_SETTLE_SECONDS: Final = 0.2


class Answers(NamedTuple):
    """The same plain hit for one client, so many times; `sent` are the body bytes of all of them."""

    kind: str
    method: str
    status: int
    repository: Repository
    asker: Asker
    digest: Digest
    times: int
    sent: int


class Repeat:
    """One answer to one client, and its line of the log. All that changes is how often it was given."""

    __slots__ = ("_digest", "_exchange", "line", "times")

    def __init__(self, exchange: Exchange, digest: Digest, line: str) -> None:
        self._exchange = exchange
        self._digest = digest
        self.line = line
        self.times = 0

    def take(self) -> Answers:
        """What was given since the last time."""
        exchange, times, self.times = self._exchange, self.times, 0
        assert exchange.repository is not None
        return Answers(
            exchange.kind,
            exchange.method,
            exchange.status,
            exchange.repository,
            exchange.asker,
            self._digest,
            times,
            exchange.sent * times,
        )


class Repeats:
    """Counts them. Used on the event loop."""

    def __init__(self, hand_on: Callable[[Sequence[Answers]], None]) -> None:
        self._hand_on = hand_on
        self._counted: list[Repeat] = []
        self._timer: asyncio.TimerHandle | None = None

    def given(self, repeat: Repeat) -> None:
        """Once more."""
        if not repeat.times:
            self._counted.append(repeat)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(_SETTLE_SECONDS, self.settle)
        repeat.times += 1

    def settle(self) -> None:
        """Hand on what was counted up to now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._counted:
            counted, self._counted = self._counted, []
            self._hand_on([each.take() for each in counted])
