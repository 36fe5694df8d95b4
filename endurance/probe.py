"""A small request every few milliseconds, from a process of its own: how long the cache keeps it waiting.

What it measures is the cache's event loop and whatever else the machine does; it is the upper bound of a pause.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from yarl import URL

from endurance.errors import EnduranceError
from endurance.serving import ROOT

INTERVAL_SECONDS: Final = 0.005
_PATIENCE_SECONDS: Final = 60.0


@dataclass
class Waits:
    """Milliseconds from request to answer, in the order of asking; there when the probing has ended."""

    waits: list[float] = field(default_factory=list)
    failed: int = 0

    def percentile(self, share: float) -> float:
        """The wait that this share of the requests did not exceed; 0.0 without any."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0

    def __str__(self) -> str:
        figures = (self.percentile(0.5), self.percentile(0.99), self.percentile(1.0))
        return "p50 {:.1f}, p99 {:.1f}, longest {:.0f} ms".format(*figures) + f" of {len(self.waits)}"


@asynccontextmanager
async def probing(url: str) -> AsyncIterator[Waits]:
    """Ask for this all the while the block runs, from its first line on."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "endurance.probe", url),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    found = Waits()
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        yield found
        output, _ = await process.communicate(b"")  # The end of its input tells it to stop.
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise EnduranceError(f"the probe ended with {process.returncode}")
    document = json.loads(output)
    found.waits, found.failed = document["waits"], document["failed"]


def _probe(url: URL) -> Waits:
    """Ask until standard input ends. A connection that breaks is made anew; an answer but 200 is a failure."""
    found, connection = Waits(), None
    request = f"GET {url.raw_path} HTTP/1.1\r\nHost: {url.authority}\r\nAccept: */*\r\n\r\n".encode()
    begin = time.perf_counter()
    while not _told_to_stop():
        begin = max(begin + INTERVAL_SECONDS, time.perf_counter() - INTERVAL_SECONDS)
        time.sleep(max(0.0, begin - time.perf_counter()))
        asked = time.perf_counter()
        try:
            if connection is None:
                connection = socket.create_connection((url.host or "", url.port or 80), _PATIENCE_SECONDS)
            connection.sendall(request)
            good = _answer(connection).startswith(b"HTTP/1.1 200 ")
        except OSError:
            good = False
            connection = None
        found.waits.append((time.perf_counter() - asked) * 1000)
        found.failed += not good
    return found


def _answer(connection: socket.socket) -> bytes:
    """A whole small answer. Raises OSError."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < int(lengths[0]):
        body += _some(connection)
    return head


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionResetError("the connection ended")
    return data


def _told_to_stop() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def main(arguments: Sequence[str]) -> None:
    """Probe the URL of the first argument; print a line when it begins, and what was found in the end."""
    print("asking", flush=True)
    found = _probe(URL(arguments[0], encoded=True))
    print(json.dumps({"waits": found.waits, "failed": found.failed}))


if __name__ == "__main__":
    main(sys.argv[1:])
