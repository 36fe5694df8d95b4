"""The program as a process: signals come in, the service manager is told, an exit code goes out.

SIGTERM, SIGINT   end, after running responses (`server.shutdown_timeout`)
SIGHUP            read the configuration again; what is wrong with it is logged, and the old one stays. When the
                  terminal that it was started in has gone, the end

With several processes (`crew`) the supervisor gets these, and passes them on to each.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from proxy.app import App
from proxy.app.crew import Crew
from proxy.app.errors import StartError
from proxy.app.listener import Opened
from proxy.config import Config, ConfigError
from proxy.logs import configure_logging
from proxy.systemd.notify import Notifier

log = logging.getLogger(__name__)

Read = Callable[[], Config]
"""Reads the configuration, blocking. Raises ConfigError."""


class Signals:
    """What a process is told, on its event loop. `lifeline` is at its end when the supervisor is: so are we then."""

    def __init__(self, lifeline: int | None = None) -> None:
        self.stopped = asyncio.Event()
        self.reload_wanted = asyncio.Event()
        self._had_terminal = sys.stderr.isatty()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopped.set)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))  # The supervisor has blocked it until now.
        if lifeline is not None:
            loop.add_reader(lifeline, self._orphaned, lifeline)

    def _orphaned(self, lifeline: int) -> None:
        asyncio.get_running_loop().remove_reader(lifeline)
        self.stopped.set()

    def _hung_up(self) -> None:
        """SIGHUP is sent by people, and by the kernel when the terminal goes, with which programs end."""
        if has_hung_up(had_terminal=self._had_terminal):
            self.stopped.set()
        else:
            self.reload_wanted.set()


def has_hung_up(*, had_terminal: bool) -> bool:
    """Whether there was a terminal and is none any more."""
    return had_terminal and not sys.stderr.isatty()


class Service:
    """One run of the cache itself, alone or as the host of a crew."""

    def __init__(
        self,
        config: Config,
        read: Read,
        opened: Mapping[str, Opened],
        notifier: Notifier,
        crew: Crew | None = None,
        lifeline: int | None = None,
    ) -> None:
        self._config = config
        self._read = read
        self._opened = opened
        self._notifier = notifier
        self._crew = crew
        self._lifeline = lifeline

    async def serve(self) -> None:
        """Until the end. Raises StartError."""
        signals = Signals(self._lifeline)
        async with AsyncExitStack() as ending:
            await self._notifier.start()
            ending.push_async_callback(self._notifier.aclose)
            app = await ending.enter_async_context(App(self._config, opened=self._opened, crew=self._crew))
            log.info("clients: %s  metrics and status: %s", app.client_url, app.admin_url)
            reloading = asyncio.create_task(self._reload_when_asked(app, signals), name="reload")
            self._notifier.ready(_serving(app))
            await signals.stopped.wait()
            reloading.cancel()
            await asyncio.wait([reloading])
            timeout = app.config.server.shutdown_timeout
            self._notifier.stopping(f"running responses may end within {timeout:g} s")
            log.info("stopping: running responses may end within %g s", timeout)

    async def _reload_when_asked(self, app: App, signals: Signals) -> None:
        """One reload after the other; signals that come during one are one more."""
        while True:
            await signals.reload_wanted.wait()
            signals.reload_wanted.clear()
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


def allow_many_files() -> None:
    """As many open files as the system lets us have: the soft limit of 1024 is there for programs that use select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            log.info("the limit of open files stays %d: %s", soft, error)


def run_alone(config: Config, read: Read, opened: Mapping[str, Opened]) -> None:
    """Serve as the only process. Raises StartError."""
    asyncio.run(Service(config, read, opened, Notifier(os.environ, os.getpid())).serve())
