"""`pullthrough serve` as several processes: which is which, a client of this one or that, and one that dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from multidict import CIMultiDictProxy
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.raw_http import RawClient, RawReply, raw_client
from tests.service_rig import LISTEN_HERE, Service, service, write_config

_PROC = Path("/proc")
_LISTENS = "0A"


@dataclass
class Ship:
    """A supervisor and its processes. Those that die are followed by others: ask again who is who."""

    service: Service
    _choosing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Two that halt processes at the same time would halt all."""

    @property
    def crew(self) -> list[int]:
        """All but the supervisor."""
        return children(self.service.process.pid)

    @property
    def hosts(self) -> list[int]:
        """Those that have the index open: none or one."""
        return [pid for pid in self.crew if any(name.endswith("index.sqlite") for name in open_files(pid))]

    @property
    def host(self) -> int:
        """The host, which there must be."""
        (pid,) = self.hosts
        return pid

    @property
    def server(self) -> int:
        """The first of the processes beside the host."""
        return min(set(self.crew) - {self.host})

    async def complete(self, count: int = 2) -> None:
        """Wait until there are so many processes, with a host."""
        await eventually(lambda: len(self.crew) == count and self.hosts, label=f"{count} processes with a host")

    @asynccontextmanager
    async def only(self, pid: int) -> AsyncIterator[None]:
        """Whoever comes meanwhile comes to this process: the others are halted, and none is born."""
        async with self._choosing:
            with halted([self.service.process.pid]), halted([each for each in self.crew if each != pid]):
                yield

    @asynccontextmanager
    async def client(
        self, pid: int, receive_buffer: int | None = None, address: str | None = None
    ) -> AsyncIterator[RawClient]:
        """A connection that this process has accepted; see `raw_client`."""
        async with contextlib.AsyncExitStack() as leaving:
            async with self.only(pid):
                before = connections_of(pid)
                connecting = raw_client(self.service.client_url, receive_buffer, address)
                client = await leaving.enter_async_context(connecting)
                await eventually(lambda: connections_of(pid) - before, label=f"{pid} accepts")
            yield client

    async def get(self, pid: int, path: str, *lines: str) -> RawReply:
        """The answer of this process, by a connection of its own."""
        async with self.client(pid) as client:
            client.ask("GET", path, *lines)
            return await client.reply()

    async def killed(self, pid: int) -> None:
        """Kill this one, and wait until it has gone."""
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: pid not in self.crew, label=f"{pid} has died")

    async def stop(self) -> None:
        """Tell the supervisor to stop, and see that all end as they should."""
        crew = self.crew
        self.service.tell(signal.SIGTERM)
        assert await self.service.ended() == 0
        assert [pid for pid in crew if is_alive(pid)] == []

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples with this name and at least these labels."""
        _, _, body = await fetched(f"{self.service.admin_url}/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def is_metric(self, name: str, value: float) -> bool:
        """Whether it is this by now."""
        return await self.metric(name) == value

    def access_log(self) -> list[str]:
        """The subjects of all requests that were logged."""
        return [each["subject"] for each in self.service.log if "subject" in each]


@asynccontextmanager
async def ship(
    folder: Path,
    hub: FakeHub,
    server: str = "",
    *,
    workers: int = 2,
    environ: Mapping[str, str] | None = None,
    sockets: Mapping[str, socket.socket] | None = None,
) -> AsyncIterator[Ship]:
    """So many processes, with more lines of [server]; see `service`."""
    async with service(
        write_ship(folder, hub, server, workers), {**LISTEN_HERE, **(environ or {})}, sockets
    ) as running:
        found = Ship(running)
        assert running.client_url, running.log
        await found.complete(workers)
        yield found


def write_ship(folder: Path, hub: FakeHub, server: str = "", workers: int = 2) -> Path:
    """The configuration of that."""
    return write_config(folder, hub, f"[server]\nworkers = {workers}\nshutdown_timeout = 5\n{server}")


async def fetched(url: str, method: str = "GET") -> tuple[int, CIMultiDictProxy[str], bytes]:
    """A whole response of whoever answers."""
    async with aiohttp.ClientSession() as session, session.request(method, url) as response:
        return response.status, response.headers, await response.read()


@contextmanager
def halted(pids: Sequence[int]) -> Iterator[None]:
    """These processes do nothing meanwhile."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        while not all(state_of(pid) in "TZX" for pid in pids):
            os.sched_yield()
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def children(pid: int) -> list[int]:
    """The processes that this one has started and that live, by what the kernel says."""
    found = []
    for each in _PROC.iterdir():
        if each.name.isdigit():
            state, parent = _stat(int(each.name))
            if parent == pid and state not in "ZX":
                found.append(int(each.name))
    return sorted(found)


def state_of(pid: int) -> str:
    """One letter of proc(5); X for what is no more."""
    return _stat(pid)[0]


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    return state_of(pid) not in "ZX"


def open_files(pid: int) -> list[str]:
    """What a process has open: paths, and names such as `socket:[12]`."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for each in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/{pid}/fd/{each}"))
    return found


def connections_of(pid: int) -> set[str]:
    """The connections that a process has accepted or made, over TCP, also those that end."""
    rows = [line.split() for line in (_PROC / "net/tcp").read_text().splitlines()[1:]]
    connected = {f"socket:[{row[9]}]" for row in rows if row[3] != _LISTENS}
    return connected.intersection(open_files(pid))


def listening(url: str) -> bool:
    """Whether somebody listens there. Asked of the kernel: a connection would change who waits there."""
    port = f":{URL(url).port:04X}"
    rows = (line.split() for line in (_PROC / "net/tcp").read_text().splitlines())
    return any(row[1].endswith(port) and row[3] == _LISTENS for row in rows)


def _stat(pid: int) -> tuple[str, int]:
    """The state of a process and its parent."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    return fields[0], int(fields[1])
