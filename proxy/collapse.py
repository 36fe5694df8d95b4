"""Collapsed forwarding (RFC 9111 section 4): concurrent requests for one thing share one fetch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Collapser(Generic[K, V]):
    """Runs at most one coroutine a key; every caller learns its outcome, success or failure.

    The work belongs to the Collapser, not to a caller: callers that are cancelled change nothing for the others, and
    the work goes on to its end even when all have left. `aclose` cancels what still runs and awaits it.
    """

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Task[V]] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._running

    async def run(self, key: K, start: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """The outcome of the running work for this key, or of `start()` when none runs."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(start(), name=f"collapsed {key}")
            self._running[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        return await asyncio.shield(task)

    async def settled(self) -> None:
        """Wait for what runs now."""
        if self._running:
            await asyncio.wait(list(self._running.values()))

    async def aclose(self) -> None:
        """Cancel and await everything that runs."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _finished(self, key: K, task: asyncio.Task[V]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # Retrieved here, since every caller may have left before the failure.
