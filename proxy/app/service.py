"""The program as a process: signals in, an exit code out."""

from __future__ import annotations

import asyncio
import logging
import signal

from proxy.app import App
from proxy.config import Config
from proxy.logs import configure_logging

log = logging.getLogger(__name__)


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code. Raises StartError."""
    configure_logging(config.log.level, config.log.format)
    asyncio.run(_serve(config))
    return 0


async def _serve(config: Config) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with App(config) as app:
        log.info("clients: %s  metrics and status: %s", app.client_url, app.admin_url)
        await stopped.wait()
        log.info("stopping: running responses may end within %g s", config.server.shutdown_timeout)
