"""Numbers that all processes of one cache see at the same moment, in memory that they share from birth.

    edition        another number after each change of what answers depend on; written by the host alone
    deaths         how many processes have died; written by the supervisor alone
    connections    of each process, in all and by client; each process writes its own

Each number has one writer, and is written in one piece: nothing is locked.
"""

from __future__ import annotations

import mmap
import zlib
from typing import Final

_BUCKETS: Final = 65_536
"""Clients are counted by a hash of their address. Two that share a bucket share what a client may have."""
_EDITION: Final = 0
_DEATHS: Final = 1
_FIRST_SEAT: Final = 2
_SEAT: Final = 1 + _BUCKETS
"""Numbers of one process: its connections, then those in each bucket."""
_NUMBER_BYTES: Final = 8


class Board:
    """For so many processes. Made before they are; whoever is forked has the same one."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._memory = mmap.mmap(-1, (_FIRST_SEAT + processes * _SEAT) * _NUMBER_BYTES)
        self._numbers = memoryview(self._memory).cast("Q")

    @property
    def edition(self) -> int:
        """What answers depend on has not changed while this is the same."""
        return self._numbers[_EDITION]

    def changed(self) -> None:
        """It has. By the host only."""
        self._numbers[_EDITION] += 1

    def seat(self, number: int) -> Seat:
        """The place of one process, from 0 on."""
        return Seat(self._numbers, _start(number), [_start(each) for each in range(self._processes)])

    @property
    def deaths(self) -> int:
        """How many of the processes have died."""
        return self._numbers[_DEATHS]

    def died(self, number: int) -> None:
        """The process that had this place has, and its connections with it. By the supervisor only."""
        self._numbers[_DEATHS] += 1
        start = _start(number)
        self._numbers[start : start + _SEAT] = memoryview(bytes(_SEAT * _NUMBER_BYTES)).cast("Q")


class Seat:
    """The connections of clients, as one process counts its own and sees them all: a `Census`."""

    def __init__(self, numbers: memoryview, own: int, all_: list[int]) -> None:
        self._numbers = numbers
        self._own = own
        self._all = all_

    @property
    def total(self) -> int:
        """Of all processes."""
        return sum(self._numbers[each] for each in self._all)

    def of(self, client: str) -> int:
        """Those of a client, with all processes."""
        bucket = 1 + zlib.crc32(client.encode()) % _BUCKETS
        return sum(self._numbers[each + bucket] for each in self._all)

    def came(self, client: str) -> None:
        """One more, in this process."""
        self._add(client, 1)

    def went(self, client: str) -> None:
        """One less."""
        self._add(client, -1)

    def _add(self, client: str, count: int) -> None:
        self._numbers[self._own] += count
        self._numbers[self._own + 1 + zlib.crc32(client.encode()) % _BUCKETS] += count


def _start(number: int) -> int:
    return _FIRST_SEAT + number * _SEAT
