"""`python -m economy.cache FACTOR BEGAN CONFIG`: the cache, unchanged but for its clock, which is the day's."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from economy.pace import Pace
from proxy.app import App
from proxy.config import load
from proxy.logs import configure_logging


async def serve(config_file: Path, pace: Pace) -> None:
    """Serve until SIGTERM."""
    config = load(config_file, {})
    configure_logging(config.log.level, config.log.format)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with App(config, clock=pace):
        await stopped.wait()


if __name__ == "__main__":
    factor, began, file = sys.argv[1:]
    asyncio.run(serve(Path(file), Pace(float(factor), float(began))))
