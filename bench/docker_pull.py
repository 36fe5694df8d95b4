"""A real `docker pull` of an image of many layers: from the upstream itself, through a cache cold, and warm."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from bench.errors import BenchError
from bench.image import IMAGE
from bench.rivals import Rival
from bench.row import Figures, Row, Work
from bench.stand import Stand
from tests.clients.dockerd import Dockerd
from tests.clients.processes import CommandFailed, clean_environment

NEEDED = {"docker": "docker.io", "dockerd": "docker.io", "runc": "runc", "busybox": "busybox-static"}


def missing() -> str | None:
    """Say why no dockerd can be run here; None where one can."""
    path = clean_environment(Path())["PATH"]
    if packages := sorted({package for name, package in NEEDED.items() if shutil.which(name, path=path) is None}):
        return f"missing Debian packages: {' '.join(packages)}"
    return None if os.geteuid() == 0 else "dockerd needs root"


def pull_image(rows: tuple[Row, Row, Row]) -> Work:
    """Pull the image past a cache, through it when it is empty, and once more; seconds each."""

    def run(stand: Stand, rival: Rival) -> Figures:
        daemon = _daemon(stand)
        with stand.fresh(rival) as server:
            return tuple(_pull(daemon, port) for port in (stand.upstream.port, server.port, server.port))

    return Work("docker pull", rows, run)


def pull_image_slowly(rows: tuple[Row, Row], bytes_a_second: int) -> Work:
    """The same where upstream is slow by the connection, past an empty cache and through it; seconds each."""

    def run(stand: Stand, rival: Rival) -> Figures:
        daemon = _daemon(stand)
        with stand.slow(rival, bytes_a_second) as (server, upstream):
            return tuple(_pull(daemon, port) for port in (upstream, server.port))

    return Work("docker pull capped", rows, run)


def _daemon(stand: Stand) -> Dockerd:
    if stand.daemon is None:
        raise BenchError("no dockerd was started")
    return stand.daemon


def _pull(daemon: Dockerd, port: int) -> float:
    """Pull from a registry on loopback, which dockerd asks over http, and remove the image; return the seconds."""
    name = f"127.0.0.1:{port}/{IMAGE}"
    os.sync()  # what the one before left to be written must not be written at this one's expense
    start = time.perf_counter()
    try:
        daemon.pull(name)
        seconds = time.perf_counter() - start
        daemon.forget(name)
    except (CommandFailed, subprocess.TimeoutExpired) as error:
        raise BenchError(str(error).strip().splitlines()[-1]) from error
    return seconds
