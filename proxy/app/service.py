"""The program as a process: signals come in, the service manager is told, an exit code goes out.

SIGTERM, SIGINT   end, after running responses (`server.shutdown_timeout`)
SIGHUP            read the configuration again; what is wrong with it is logged, and the old one stays. When the
                  terminal that it was started in has gone, the end
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from socket import socket

from proxy.app import App
from proxy.app.errors import StartError
from proxy.config import Config, ConfigError
from proxy.logs import configure_logging
from proxy.systemd.activation import ActivationError, adopt, passed_fds
from proxy.systemd.notify import Notifier

log = logging.getLogger(__name__)

Read = Callable[[], Config]
"""Reads the configuration, blocking. Raises ConfigError."""


def run(config: Config, read: Read) -> int:
    """Serve until SIGTERM or SIGINT; `read` is for SIGHUP. Returns the exit code. Raises StartError."""
    configure_logging(config.log.level, config.log.format)
    _allow_many_files()
    try:
        passed = {name: adopt(fds) for name, fds in passed_fds(os.environ, os.getpid()).items()}
    except ActivationError as error:
        raise StartError(f"cannot use the sockets of the service manager: {error}") from error
    asyncio.run(_Service(config, read, passed).serve())
    return 0


class _Service:
    """One run of the program."""

    def __init__(self, config: Config, read: Read, passed: Mapping[str, Sequence[socket]]) -> None:
        self._config = config
        self._read = read
        self._passed = passed
        self._notifier = Notifier(os.environ, os.getpid())
        self._stopped = asyncio.Event()
        self._reload_wanted = asyncio.Event()
        self._had_terminal = sys.stderr.isatty()

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        async with AsyncExitStack() as ending:
            await self._notifier.start()
            ending.push_async_callback(self._notifier.aclose)
            app = await ending.enter_async_context(App(self._config, passed=self._passed))
            log.info("clients: %s  metrics and status: %s", app.client_url, app.admin_url)
            reloading = loop.create_task(self._reload_when_asked(app), name="reload")
            self._notifier.ready(_serving(app))
            await self._stopped.wait()
            reloading.cancel()
            await asyncio.wait([reloading])
            timeout = app.config.server.shutdown_timeout
            self._notifier.stopping(f"running responses may end within {timeout:g} s")
            log.info("stopping: running responses may end within %g s", timeout)

    def _hung_up(self) -> None:
        """SIGHUP is sent by people, and by the kernel when the terminal goes, with which programs end."""
        if self._had_terminal and not sys.stderr.isatty():
            self._stopped.set()
        else:
            self._reload_wanted.set()

    async def _reload_when_asked(self, app: App) -> None:
        """One reload after the other; signals that come during one are one more."""
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            self._notifier.reloading()
            await self._reload(app)
            self._notifier.ready(_serving(app))

    async def _reload(self, app: App) -> None:
        try:
            config = await asyncio.to_thread(self._read)
            waiting = await app.reload(config)
        except (ConfigError, StartError) as error:
            log.error("the configuration is not taken, the one before stays: %s", error)
            return
        except Exception:
            log.exception("the configuration is not taken, the one before stays")
            return
        configure_logging(config.log.level, config.log.format)
        if waiting:
            log.warning("the configuration is read again; %s: only a restart changes that", ", ".join(waiting))
        else:
            log.info("the configuration is read again")


def _serving(app: App) -> str:
    return f"serving clients at {app.client_url}"


def _allow_many_files() -> None:
    """As many open files as the system lets us have: the soft limit of 1024 is there for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            log.info("the limit of open files stays %d: %s", soft, error)
