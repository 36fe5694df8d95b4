"""Transports that bring large bodies to their client in a way of their own, past the pump."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable

from proxy.server.pump import Sendable


class Carrier(asyncio.Transport):
    """A way to a client that another process has a connection with."""

    @abstractmethod
    async def carry(self, content: Sendable, start: int, stop: int, moved: Callable[[int], None]) -> None:
        """Bring the bytes from `start` to `stop` to the client; `moved` is told how many it took.

        Raises RegistryError when the content fails, ConnectionError when the client has left.
        """

    @abstractmethod
    def keep(self, record: object) -> None:
        """The answer may be given again without asking; `record` says for how long, and what is counted then."""
