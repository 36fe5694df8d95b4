"""Transports that bring large bodies to their client in a way of their own, past the pump."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable

from proxy.oci.names import Digest
from proxy.server.access_log import Exchange
from proxy.server.pump import Sendable


class Carrier(asyncio.Transport):
    """A way to a client that another process has a connection with. It stands for the connection, too."""

    alone: bytes | None
    """All bytes of the request that is being answered, if nothing came after it."""

    @abstractmethod
    async def carry(self, content: Sendable, start: int, stop: int, moved: Callable[[int], None]) -> None:
        """Bring the bytes from `start` to `stop` to the client; `moved` is told how many it took.

        Raises RegistryError when the content fails, ConnectionError when the client has left.
        """

    @abstractmethod
    def keep(self, digest: Digest, exchange: Exchange, until: float) -> None:
        """The answer to come, a plain hit, may be given again while nothing changes, and until then (wall clock)."""
