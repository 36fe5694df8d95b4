"""Processes: find a program, start a server, wait until it answers, stop it."""

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path

from bench.errors import BenchError, MissingProgram

PACKAGES = {
    "nginx": "nginx-light",
    "docker-registry": "docker-registry",
    "openssl": "openssl",
    "taskset": "util-linux",
    "wrk": "wrk",
}
READY_WITHIN = 20.0
STOPPED_WITHIN = 15.0

# Settings of whoever runs the benchmark must not leak into the servers: each is configured by its file alone.
FOREIGN_PREFIXES = ("PULLTHROUGH_", "DOCKERHUB_", "REGISTRY_", "OTEL_")


def program(name: str) -> str:
    """Return the path of a program, or raise the error that names its Debian package."""
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))
    if path is None:
        raise MissingProgram(f"{name} is missing: install Debian's package {PACKAGES[name]}")
    return path


def free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str], *, port: int, log: Path, cwd: Path | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Run a server until the block ends; yield its process id once it answers `GET /v2/`, over TLS if that is given."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=cwd, env=_environment()
        )
    try:
        _wait_until_ready(process, port, log, tls)
        yield process.pid
    finally:
        _stop(process)


def _environment() -> dict[str, str]:
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(FOREIGN_PREFIXES) and not key.lower().endswith("_proxy")
    }


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path, tls: ssl.SSLContext | None) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while not _answers(port, tls):
        if process.poll() is not None:
            raise BenchError(f"{_name(process)} ended with {process.returncode}: {_last_line(log)}")
        if time.monotonic() > deadline:
            raise BenchError(f"{_name(process)} did not answer within {READY_WITHIN:.0f} s: {_last_line(log)}")
        time.sleep(0.02)


def _answers(port: int, tls: ssl.SSLContext | None) -> bool:
    if tls is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=2)
    else:
        connection = HTTPSConnection("127.0.0.1", port, timeout=2, context=tls)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOPPED_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _name(process: subprocess.Popen[bytes]) -> str:
    args = process.args
    return " ".join(Path(str(part)).name for part in args[:3]) if isinstance(args, list) else str(args)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
