"""How long one client waits for upstream, in all: one deadline, taken when its request comes in.

While we hold something to answer with, that is REVALIDATION_PATIENCE_SECONDS, whatever is asked on the client's behalf:
whether the repository is public, where the tag points, what is there. Without anything it is as long as clients
themselves wait. What is asked goes on without the client, and is there when it comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

from proxy.oci.errors import Unavailable
from proxy.policy.freshness import REVALIDATION_PATIENCE_SECONDS

EMPTY_HANDED_SECONDS: Final = 25.0
"""Clients wait 30 s for headers (PROTOCOL 8.10)."""

T = TypeVar("T")


class Slow(Unavailable):
    """Upstream takes longer than this client can wait."""


class Patience:
    """One client's patience, which begins now."""

    __slots__ = ("_began",)

    def __init__(self) -> None:
        self._began = asyncio.get_running_loop().time()

    async def wait(self, asked: Awaitable[T], *, holding: bool) -> T:
        """What was asked upstream; `holding` says that we can answer without it. Raises Slow."""
        seconds = REVALIDATION_PATIENCE_SECONDS if holding else EMPTY_HANDED_SECONDS
        try:
            async with asyncio.timeout_at(self._began + seconds):
                return await asked
        except TimeoutError:
            raise Slow("the upstream registry is slow to answer, and is still being asked", retry_after=5) from None
