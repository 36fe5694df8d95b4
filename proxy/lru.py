"""A dictionary bounded by weight, which forgets what was used longest ago."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def _one(_: object) -> int:
    return 1


class Lru(Generic[K, V]):
    """Holds values of at most `capacity` total weight; by default each weighs one."""

    def __init__(self, capacity: int, weigh: Callable[[V], int] = _one) -> None:
        self.weight = 0
        self._capacity = capacity
        self._weigh = weigh
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value, which is now the most recently used."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Keep the value, forgetting others to make room; one heavier than the whole capacity is not kept."""
        self.drop(key)
        weight = self._weigh(value)
        if weight > self._capacity:
            return
        self._entries[key] = value
        self.weight += weight
        while self.weight > self._capacity:
            _, forgotten = self._entries.popitem(last=False)
            self.weight -= self._weigh(forgotten)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.weight = 0

    def drop(self, key: K) -> None:
        """Forget the value, if there is one."""
        value = self._entries.pop(key, None)
        if value is not None:
            self.weight -= self._weigh(value)
