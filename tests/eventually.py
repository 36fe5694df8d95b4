"""Waiting for a state: the one place in the tests that sleeps."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

INTERVAL = 0.002


async def eventually(predicate: Callable[[], object], timeout: float = 20.0, label: str = "") -> None:  # noqa: ASYNC109 (the message is ours)
    """Return as soon as `predicate()` (which may be a coroutine function) is true; fail, naming it, after `timeout`."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not await _ask(predicate):
        if asyncio.get_running_loop().time() >= deadline:
            raise AssertionError(f"still not true after {timeout} s: {label or await _source(predicate)}")
        await asyncio.sleep(INTERVAL)


async def _ask(predicate: Callable[[], object]) -> object:
    answer = predicate()
    return await answer if isinstance(answer, Awaitable) else answer


async def _source(predicate: Callable[[], object]) -> str:
    try:
        # In a thread: it reads a file, and tests forbid that in the event loop.
        return (await asyncio.to_thread(inspect.getsource, predicate)).strip()
    except (OSError, TypeError):
        return repr(predicate)
