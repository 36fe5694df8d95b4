"""Blocking work in a thread, of which nothing is left running when its caller goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")


async def in_thread(executor: Executor, work: Callable[[], T], interrupt: Callable[[], None] | None = None) -> T:
    """The outcome of `work`. A caller that is cancelled waits for its end: a file may not be closed under it.

    Work that may take long has an `interrupt`, which makes it end soon.
    """
    running = asyncio.get_running_loop().run_in_executor(executor, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if interrupt is not None:
            interrupt()
        await asyncio.wait([running])
        running.exception()  # Nobody will ask for it any more; unasked, it would be logged as forgotten.
        raise
