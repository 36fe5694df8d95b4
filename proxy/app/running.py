"""`run`: the cache as one process, or as a supervisor and those that it starts."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from socket import socket

from proxy.app.crew import gather_crew
from proxy.app.errors import StartError
from proxy.app.listener import Opened, cannot_listen
from proxy.app.reloading import carried_over
from proxy.app.server import Server
from proxy.app.service import Read, Service, Signals, allow_many_files, has_hung_up, run_alone
from proxy.app.sockets import SharedSocket, open_sockets
from proxy.config import Address, Config
from proxy.logs import configure_logging
from proxy.systemd.activation import ActivationError, adopt, passed_fds
from proxy.systemd.notify import Notifier
from proxy.workers.supervisor import Lines, Supervisor

log = logging.getLogger(__name__)

KILL_SECONDS = 15.0
"""How much longer than `server.shutdown_timeout` a process may take to end."""


def run(config: Config, read: Read) -> int:
    """Serve until SIGTERM or SIGINT; `read` is for SIGHUP. Returns the exit code. Raises StartError."""
    configure_logging(config.log.level, config.log.format)
    allow_many_files()
    try:
        passed = {name: adopt(fds) for name, fds in passed_fds(os.environ, os.getpid()).items()}
    except ActivationError as error:
        raise StartError(f"cannot use the sockets of the service manager: {error}") from error
    opened = {name: Opened(sockets, lasting=True) for name, sockets in passed.items()}
    if config.server.workers > 1:
        with closing(_Processes(config, read, opened)) as processes:
            return processes.run()
    run_alone(config, read, opened)
    return 0


class _Processes:
    """The supervisor's side: what all processes begin with."""

    def __init__(self, config: Config, read: Read, opened: Mapping[str, Opened]) -> None:
        """Raises StartError."""
        self._config = config
        self._read = read
        with ExitStack() as opening:
            clients = _opened(opened.get("clients"), config.server.listen, "[server] listen", config)
            opening.callback(_close, clients.sockets)
            admin = _opened(opened.get("admin"), config.admin.listen, "[admin] listen", config)
            opening.callback(_close, admin.sockets)
            self._opened = {"clients": clients, "admin": admin}
            self._crew = gather_crew(config.server.workers)
            opening.callback(self._crew.desk.close)
            self._closing = opening.pop_all()
        self._notifier = Notifier(os.environ, os.getpid())
        self._had_terminal = sys.stderr.isatty()

    def close(self) -> None:
        """Close all sockets, in this process."""
        self._closing.close()

    def run(self) -> int:
        servers = [
            (f"server {number}", partial(self._serve, number)) for number in range(1, self._config.server.workers)
        ]
        supervisor = Supervisor(
            [("the host", self._host), *servers],
            died=self._crew.board.died,
            tell=self._notifier.pass_on,
            hung_up=self._hung_up,
            stopping=self._close_doors,
            patience=lambda: self._config.server.shutdown_timeout + KILL_SECONDS,
        )
        return supervisor.run()

    def _close_doors(self) -> None:
        """When the processes have closed theirs too, clients are refused at once, and go elsewhere."""
        for opened in self._opened.values():
            _close(opened.sockets)

    def _hung_up(self) -> bool:
        """Whether it is the end. If not, processes that are started from now on begin with the new configuration."""
        if has_hung_up(had_terminal=self._had_terminal):
            return True
        try:
            self._config, _ = carried_over(self._config, self._read())
        except Exception as error:  # The host says so, louder. Whatever it is, nobody is to die of it.
            log.debug("the configuration is not taken: %s", error)
        return False

    def _host(self, lines: Lines) -> int:
        notifier = Notifier(_unwatched(os.environ), os.getpid(), lines.notify)
        service = Service(self._config, self._read, self._opened, notifier, self._crew, lines.lifeline)
        return _exit_code(service.serve())

    def _serve(self, number: int, lines: Lines) -> int:
        return _exit_code(self._serve_clients(number, lines))

    async def _serve_clients(self, number: int, lines: Lines) -> None:
        """As one beside the host."""
        signals = Signals(lines.lifeline)
        server = Server(self._config, self._crew, number, self._opened["clients"])
        self._crew.desk.close()
        _close(self._opened["admin"].sockets)
        await server.start()
        try:
            reloading = asyncio.create_task(self._reload_when_asked(server, signals), name="reload")
            await signals.stopped.wait()
            reloading.cancel()
            await asyncio.wait([reloading])
        finally:
            await server.stop()

    async def _reload_when_asked(self, server: Server, signals: Signals) -> None:
        while True:
            await signals.reload_wanted.wait()
            signals.reload_wanted.clear()
            try:
                config, _ = carried_over(server.config, await asyncio.to_thread(self._read))
                await server.reload(config)
            except Exception as error:  # As above.
                log.debug("the configuration is not taken: %s", error)
            else:
                configure_logging(config.log.level, config.log.format)


def _exit_code(work: Coroutine[object, object, None]) -> int:
    """Of a process that does this."""
    try:
        asyncio.run(work)
    except StartError as error:
        print(f"pullthrough: {error}", file=sys.stderr)
        return 1
    return 0


def _close(sockets: Iterable[socket]) -> None:
    """In this process."""
    for each in sockets:
        each.close()


def _opened(passed: Opened | None, address: Address, setting: str, config: Config) -> Opened:
    """Sockets for several processes. Raises StartError."""
    if passed is not None:
        return Opened([SharedSocket(fileno=each.detach()) for each in passed.sockets], lasting=True)
    reuse_port = config.server.reuse_port
    try:
        return Opened(open_sockets(address.host, address.port, reuse_port=reuse_port), lasting=False)
    except OSError as error:
        raise cannot_listen(address, setting, error, reuse_port=reuse_port) from error


def _unwatched(environ: Mapping[str, str]) -> dict[str, str]:
    """The watchdog wants to hear of us by the supervisor, whose number it knows."""
    return {name: value for name, value in environ.items() if name != "WATCHDOG_PID"}
