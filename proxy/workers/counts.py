"""What a server counts by itself: said to the host, which keeps the books, a few times a second and when it asks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable


class Counts:
    """Used on the event loop."""

    def __init__(self) -> None:
        self._refused: Counter[str] = Counter()

    def connection_refused(self, reason: str) -> None:
        """A connection of a client was refused, or ended before its time."""
        self._refused[reason] += 1

    def take(self) -> bytes:
        """All since the last time."""
        refused, self._refused = self._refused, Counter()
        return json.dumps({"refused": refused}).encode()


def count(content: bytes, refused: Callable[[str, int], None]) -> None:
    """Add what a server has counted to what the host has."""
    for reason, number in json.loads(content)["refused"].items():
        refused(reason, number)
