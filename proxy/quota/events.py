"""What people want to know of, the last of it in memory: refusals, levels, outages, what vanished, who bypasses us."""

from __future__ import annotations

import logging
from collections import deque
from typing import Final, Literal

from proxy.clock import Clock
from proxy.store.index.ledger import EventRow

log = logging.getLogger(__name__)

KEPT: Final = 50
_MAX_UNSAVED: Final = 1000

Kind = Literal["limited", "abuse", "level", "stale", "vanished", "bypass", "refused"]
"""A 429 of the pull limit, of the request limit; the governor's level; an outage that is answered stale; something that
upstream denies and we hold; somebody else uses the account; cold pulls are refused."""


class Events:
    """The last events, newest first. Times are seconds since the epoch."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._recent: deque[EventRow] = deque(maxlen=KEPT)
        self._unsaved: deque[EventRow] = deque(maxlen=_MAX_UNSAVED)

    def note(self, upstream: str, kind: Kind, text: str) -> None:
        """This has happened now."""
        event = EventRow(self._clock.time(), upstream, kind, text)
        self._recent.appendleft(event)
        self._unsaved.append(event)

    def recent(self) -> list[EventRow]:
        """The last ones, newest first."""
        return list(self._recent)

    def remember(self, events: list[EventRow]) -> None:
        """What an earlier process noted, newest first."""
        self._recent.extend(events[: KEPT - len(self._recent)])

    def take_unsaved(self) -> list[EventRow]:
        """What was not taken yet, oldest first."""
        taken = list(self._unsaved)
        self._unsaved.clear()
        return taken

    def give_back(self, events: list[EventRow]) -> None:
        """They could not be written."""
        self._unsaved.extendleft(reversed(events[-(_MAX_UNSAVED - len(self._unsaved)) :]))
