"""A slow way to the upstream: each connection through it brings no more than so many bytes a second.

`python -m bench.capped PORT UPSTREAM_PORT BYTES_A_SECOND`. The kernel paces what is sent, evenly: without the bursts
with which nginx's `limit_rate` begins every answer, and from which segments would profit.
"""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.processes import free_port, running

SO_MAX_PACING_RATE = 47
HOUSE = Path(__file__).resolve().parent.parent
PIECE = 64 * 1024  # what a pipe holds


@contextmanager
def capped(directory: Path, upstream_port: int, bytes_a_second: int) -> Iterator[int]:
    """The port of such a way to a port of this machine, until the block ends."""
    port = free_port()
    command = [sys.executable, "-m", "bench.capped", *map(str, (port, upstream_port, bytes_a_second))]
    with running(command, port=port, log=directory / "capped.log", cwd=HOUSE):
        yield port


def main(port: int, upstream_port: int, bytes_a_second: int) -> None:
    """Pass on what comes, both ways, until killed."""
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, bytes_a_second)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = socket.create_connection(("127.0.0.1", upstream_port))
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Without a copy, so that this takes next to nothing of the machine from those that are measured."""
    end, begin = os.pipe()
    with suppress(OSError):
        while size := os.splice(source.fileno(), begin, PIECE):
            while size:
                size -= os.splice(end, target.fileno(), size)
    os.close(begin)
    os.close(end)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
