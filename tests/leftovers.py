"""What must not be left over: open files and sockets, and tasks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.eventually import eventually


def held() -> tuple[int, int]:
    """How many descriptors this process has open, and how many tasks the loop has."""
    return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())


@asynccontextmanager
async def nothing_left_over() -> AsyncIterator[None]:
    """What is opened and begun within is closed and ended a moment later. Do it once before: connections are kept."""
    before = held()
    yield
    await eventually(lambda: held() <= before, label=f"no more is held than {before} descriptors and tasks")
