"""Who waits for quota, in an order that is fair to clients: each in its turn, however many one of them asks for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from proxy.policy.quota.governor import Priority

MAX_WAITING: Final = 256
MAX_WAITING_PER_CLIENT: Final = 32


@dataclass(eq=False, slots=True)
class _Waiter:
    priority: Priority
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class FairQueue:
    """Those who wait for one account."""

    def __init__(self) -> None:
        self._clients: dict[str, deque[_Waiter]] = {}
        """In the order of whose turn is next."""
        self._length = 0

    def __len__(self) -> int:
        return self._length

    async def wait(self, client: str, priority: Priority, seconds: float) -> bool:
        """Whether this client's turn has come within the time; False at once if too many wait already."""
        if self._length >= MAX_WAITING or len(self._clients.get(client, ())) >= MAX_WAITING_PER_CLIENT:
            return False
        waiter = _Waiter(priority)
        self._clients.setdefault(client, deque()).append(waiter)
        self._length += 1
        try:
            async with asyncio.timeout(seconds):
                await waiter.turn
        except TimeoutError:
            return waiter.turn.done() and not waiter.turn.cancelled()
        finally:
            self._leave(client, waiter)
        return True

    def release(self, may: Callable[[Priority], bool]) -> bool:
        """Let the next one go, of those that may; whether there was one."""
        for client, waiters in self._clients.items():
            waiter = next((each for each in waiters if not each.turn.done() and may(each.priority)), None)
            if waiter is not None:
                waiter.turn.set_result(None)
                self._clients[client] = self._clients.pop(client)  # The next turn is somebody else's.
                return True
        return False

    def _leave(self, client: str, waiter: _Waiter) -> None:
        waiters = self._clients[client]
        waiters.remove(waiter)
        self._length -= 1
        if not waiters:
            del self._clients[client]
