"""How many connections of clients there are, in all and of each address."""

from __future__ import annotations

from typing import Protocol


class Census(Protocol):
    """Counts them, in one process or in all that serve the same clients."""

    @property
    def total(self) -> int:
        """How many are open."""

    def of(self, client: str) -> int:
        """How many of them are of this address."""

    def came(self, client: str) -> None:
        """One more."""

    def went(self, client: str) -> None:
        """One less."""


class OwnCensus:
    """That of a process which serves alone."""

    def __init__(self) -> None:
        self.total = 0
        self._by_client: dict[str, int] = {}

    def of(self, client: str) -> int:
        return self._by_client.get(client, 0)

    def came(self, client: str) -> None:
        self.total += 1
        self._by_client[client] = self.of(client) + 1

    def went(self, client: str) -> None:
        self.total -= 1
        left = self._by_client.pop(client) - 1
        if left:
            self._by_client[client] = left
