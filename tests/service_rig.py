"""`pullthrough serve` as processes that take over from one another, and clients that pull all the while."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from tests.eventually import eventually
from tests.fake_hub import FakeHub, Image

LISTEN_HERE = {"PULLTHROUGH_SERVER__LISTEN": "127.0.0.1:0", "PULLTHROUGH_ADMIN__LISTEN": "127.0.0.1:0"}

_LINE_BYTES = 1 << 20
"""Of the log at most: a traceback is one."""

_PASS_SOCKETS = """
import fcntl, os, sys
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD_CLOEXEC, 100) for fd in sys.argv[1].split(",")]
for number, fd in enumerate(high, 3):
    os.dup2(fd, number)
os.execve(sys.argv[2], sys.argv[2:], os.environ | {"LISTEN_PID": str(os.getpid())})
"""
"""Run by a child before it becomes the program: the descriptors get the numbers that systemd gives them."""


@dataclass
class Service:
    """One process; `log` grows while it runs."""

    process: Process
    client_url: str = ""
    admin_url: str = ""
    log: list[dict[str, Any]] = field(default_factory=list)

    def messages(self, level: str = "") -> list[str]:
        """What it logged, of one level or all."""
        return [each["message"] for each in self.log if "message" in each and level in ("", each["level"])]

    async def logged(self, text: str) -> None:
        """Wait for a line with this text."""
        await eventually(lambda: any(text in each for each in self.messages()), label=f"{text!r} in {self.messages()}")

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code."""
        return await asyncio.wait_for(self.process.wait(), 30)


def write_config(folder: Path, hub: FakeHub, more: str = "") -> Path:
    """A configuration file in this folder, with the cache beside it; `more` is TOML that comes first."""
    path = folder / "config.toml"
    path.write_text(
        f'{more}\n[log]\nformat = "json"\n[cache]\ndirectory = "{folder}/cache"\n'
        f'[[upstream]]\nname = "docker.io"\nurl = "{hub.url}"\n'
    )
    return path


@asynccontextmanager
async def service(
    config: Path, environ: Mapping[str, str] = LISTEN_HERE, sockets: Mapping[str, socket.socket] | None = None
) -> AsyncIterator[Service]:
    """A process that serves, or has ended before it did; killed at the end if it still runs.

    `sockets` are passed as systemd passes them: as descriptors from 3 on.
    """
    command = [sys.executable, "-W", "error", "-m", "proxy", "serve", "--config", str(config)]
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PULLTHROUGH_", "DOCKERHUB_"))}
    fds = [each.fileno() for each in (sockets or {}).values()]
    if sockets:
        command = [sys.executable, "-c", _PASS_SOCKETS, ",".join(map(str, fds)), *command]
        bare |= {"LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": ":".join(sockets)}
    environ = {**bare, **environ}
    process = await asyncio.create_subprocess_exec(*command, env=environ, stderr=PIPE, limit=_LINE_BYTES, pass_fds=fds)
    running = Service(process)
    following = asyncio.ensure_future(_follow(running))
    try:
        await eventually(lambda: running.client_url or following.done())
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await following


async def _follow(running: Service) -> None:
    """Read the log until the process ends."""
    assert running.process.stderr is not None
    async for line in running.process.stderr:
        try:
            record = json.loads(line)
        except ValueError:
            record = {"level": "plain", "message": line.decode()}
        running.log.append(record)
        words = record.get("message", "").split()
        if words[:1] == ["clients:"]:
            running.client_url, running.admin_url = words[1], words[-1]


@dataclass
class Pullers:
    """Clients that pull images again and again. `pulled` counts blobs that came whole and right."""

    url: str
    images: list[Image]
    pulled: int = 0
    failures: list[str] = field(default_factory=list)

    async def more(self, count: int = 60) -> None:
        """Wait until so many more blobs were pulled."""
        wanted = self.pulled + count
        await eventually(lambda: self.pulled >= wanted or self.failures, timeout=60, label=f"{wanted} blobs are pulled")

    async def pull(self, seed: int) -> None:
        """Pull until cancelled: odd ones by a new connection for each request, even ones by connections that they keep.

        aiohttp's client does what Go's does: a GET on a kept connection that breaks before any byte of the answer is
        sent once more, by another one.
        """
        chance = random.Random(seed)
        connector = aiohttp.TCPConnector(force_close=seed % 2 == 1)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            while True:
                image = chance.choice(self.images)
                try:
                    await self._get(session, f"{image.repository}/manifests/latest", image.digest)
                    for digest in image.blobs:
                        await self._get(session, f"{image.repository}/blobs/{digest}", digest)
                        self.pulled += 1
                except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                    self.failures.append(f"{image.repository}: {error!r}")

    async def _get(self, session: aiohttp.ClientSession, path: str, digest: str) -> None:
        async with session.get(f"{self.url}/v2/{path}") as response:
            content = await response.read()
        found = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if response.status != 200 or found != digest:
            raise ValueError(f"{response.status} with {len(content)} bytes for {path}")


@asynccontextmanager
async def pulling(url: str, images: list[Image], clients: int = 8) -> AsyncIterator[Pullers]:
    """So many clients, until the end."""
    pullers = Pullers(url, images)
    tasks = [asyncio.ensure_future(pullers.pull(seed)) for seed in range(clients)]
    try:
        yield pullers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


_KNOCK = """
import contextlib, socket, sys, threading
address, failures, stopping = ("127.0.0.1", int(sys.argv[1])), [], threading.Event()
def knock():
    while not stopping.wait(0.02):
        with contextlib.ExitStack() as stack:
            try:
                burst = [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(8)]
                for each in burst:
                    each.sendall(b"GET /v2/ HTTP/1.1\\r\\nHost: cache\\r\\nConnection: close\\r\\n\\r\\n")
                if not all(each.recv(4096).startswith(b"HTTP/1.1 200 ") for each in burst):
                    failures.append("no answer")
            except OSError as error:
                failures.append(repr(error))
thread = threading.Thread(target=knock)
thread.start()
sys.stdin.read()
stopping.set()
thread.join()
for each in failures:
    print(each)
"""
"""Eight clients at once, again and again, in a process of their own: at many a moment some are in the queue."""


@dataclass
class Knocks:
    """Filled at the end."""

    failures: list[str] = field(default_factory=list)


@asynccontextmanager
async def knocking(url: str) -> AsyncIterator[Knocks]:
    """New connections without a pause."""
    knocks = Knocks()
    command = [sys.executable, "-c", _KNOCK, str(URL(url).port)]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    try:
        yield knocks
    finally:
        output, _ = await process.communicate(b"")  # Which ends its input.
        knocks.failures += output.decode().splitlines()


@contextmanager
def service_manager(folder: Path) -> Iterator[tuple[Mapping[str, str], socket.socket]]:
    """A socket such as systemd reads from, and the environment that names it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(folder / "notify"))
        sock.setblocking(False)
        yield {"NOTIFY_SOCKET": str(folder / "notify")}, sock
