"""The load: `wrk` for small responses, our own readers for bodies; each in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from bench.errors import BenchError
from bench.processes import program
from bench.readers import ACCEPT, ALL_ARE_READING, Order, Reading

PATIENCE = "60s"  # slow is a figure, not a failure
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What `wrk` saw."""

    count: int
    seconds: float
    p99_ms: float
    failed: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.count / self.seconds


def ask_often(port: int, path: str, *, connections: int, seconds: int, aside: bool = False) -> Requests:
    """Ask for a small thing as often as the server can answer; from one core only if `aside`."""
    how = f"-t1 -c{connections} -d{seconds}s --timeout {PATIENCE}".split()
    command = [
        *_on_core(aside),
        program("wrk"),
        *how,
        "-s",
        str(HERE / "report.lua"),
        "-H",
        ACCEPT,
        f"http://127.0.0.1:{port}{path}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"wrk ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-200:]}")
    requests = Requests(**json.loads(done.stdout.splitlines()[-1]))
    if requests.failed or not requests.count:
        raise BenchError(f"{requests.failed} of {requests.count} requests failed")
    return requests


def pull(port: int, path: str, *, clients: int = 1, tls: bool = False) -> Reading:
    """Let each client pull the thing once, all at the same time."""
    return _run(Order(port=port, path=path, clients=clients, tls=tls))


def pull_often(
    port: int, path: str, *, clients: int, seconds: float, tls: bool = False, aside: bool = False
) -> Reading:
    """Let each client pull the thing again and again; from one core only if `aside`."""
    return _run(Order(port=port, path=path, clients=clients, seconds=seconds, tls=tls), aside=aside)


@contextmanager
def holding(port: int, path: str, count: int) -> Iterator[None]:
    """Keep so many connections open that do nothing any more, each after one answer."""
    with ExitStack() as stack:
        for number in range(count):
            connection = stack.enter_context(closing(HTTPConnection("127.0.0.1", port, timeout=10)))
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                response.read()
            except (OSError, HTTPException) as error:
                raise BenchError(f"connection {number + 1}: {error}") from error
            if response.status != 200 or connection.sock is None:
                raise BenchError(f"connection {number + 1} was not kept after a response of {response.status}")
        yield


class Background:
    """Readers beside another load; the reading is there when the block has ended."""

    reading: Reading


@contextmanager
def pulling(port: int, path: str, *, clients: int) -> Iterator[Background]:
    """Let clients pull at full speed as long as the block runs; it begins when each has had its first byte."""
    background = Background()
    with _readers(Order(port=port, path=path, clients=clients, until_told=True)) as process:
        assert process.stdout is not None
        if process.stdout.readline().strip() != ALL_ARE_READING:
            _, complaint = process.communicate()
            raise BenchError(complaint.strip())
        yield background
        background.reading = _reading(process)


def _run(order: Order, *, aside: bool = False) -> Reading:
    with _readers(order, aside=aside) as process:
        return _reading(process)


@contextmanager
def _readers(order: Order, *, aside: bool = False) -> Iterator[subprocess.Popen[str]]:
    command = [*_on_core(aside), sys.executable, "-m", "bench.readers", json.dumps(asdict(order))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=HERE.parent) as process:
        try:
            yield process
        finally:
            process.kill()


def _reading(process: subprocess.Popen[str]) -> Reading:
    """End the readers' standard input, which tells them to stop if they wait for that, and take their reading."""
    output, complaint = process.communicate()
    if process.returncode:
        raise BenchError(complaint.strip())
    return Reading(**json.loads(output))


def _on_core(aside: bool) -> list[str]:
    """What keeps a command on the last core."""
    return [program("taskset"), "--cpu-list", str(max(os.sched_getaffinity(0)))] if aside else []
