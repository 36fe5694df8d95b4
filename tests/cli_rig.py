"""What the tests of the commands share: a bare environment, an admin listener, and the command as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.ports import free_port

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of whoever runs the tests."""
    for name in os.environ:
        if name.startswith(("PULLTHROUGH_", "DOCKERHUB_", "REGISTRY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PULLTHROUGH_CACHE__DIRECTORY", str(tmp_path / "cache"))


@pytest.fixture
def unused_port() -> int:
    """A port on which nothing listens."""
    return free_port()


@contextmanager
def admin(answer: bytes, status: int = 200) -> Iterator[int]:
    """An admin listener that gives every GET this answer; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proxy", *arguments]
    return subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, timeout=30, check=False)
