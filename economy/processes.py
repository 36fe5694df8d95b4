"""A cache as a process of its own, with nothing of the environment of whoever runs this."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench.processes import FOREIGN_PREFIXES
from economy.errors import EconomyError

HOUSE: Final = Path(__file__).resolve().parent.parent
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0


@asynccontextmanager
async def serving(command: Sequence[str], port: int, log: Path) -> AsyncIterator[None]:
    """Run a cache until the block ends; it listens when the block begins. Raises EconomyError."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(FOREIGN_PREFIXES) and not name.lower().endswith("_proxy")
    }
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=HOUSE, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        await _listens(process, port, log)
        yield
    finally:
        await _end(process)


async def _listens(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            while process.returncode is None:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        pass
    said = await asyncio.to_thread(log.read_text, errors="replace")
    lines = said.strip().splitlines() or ["it said nothing"]
    raise EconomyError(f"a cache does not listen: {lines[-1]}")


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
