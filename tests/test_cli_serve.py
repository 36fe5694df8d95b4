"""`pullthrough serve`, as a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy import __version__
from proxy.cli.banner import banner
from proxy.config import Address, AdminOptions, CacheOptions, Config, Secret, ServerOptions, UpstreamOptions
from tests.cli_rig import bare_environment, run, unused_port

__all__ = ["bare_environment", "unused_port"]  # Fixtures: used by their names.


def test_the_banner_says_where_everything_is_and_what_to_tell_dockerd() -> None:
    account = UpstreamOptions(username="alice", password=Secret("dckr_pat_secret"))
    text = banner(Config(cache=CacheOptions(directory=Path("/cache")), upstreams=(account,)), "cachehost")
    assert '{"registry-mirrors": ["http://127.0.0.1:5000"]}' in text
    assert "http://cachehost:5000" in text
    assert "docker.io (https://registry-1.docker.io) as alice" in text
    assert "http://127.0.0.1:5001/metrics" in text
    assert "/cache" in text
    assert "dckr_pat_secret" not in text


def test_the_banner_names_no_address_where_the_service_manager_has_the_socket() -> None:
    text = banner(Config(), "cachehost", activated=True)
    assert "by the socket of the service manager" in text
    assert ":5000" not in text


@pytest.mark.parametrize(
    ("config", "said", "unsaid"),
    [
        (Config(server=ServerOptions(listen=Address("127.0.0.1", 5005))), '["http://127.0.0.1:5005"]', "cachehost"),
        (Config(server=ServerOptions(listen=Address("", 0))), "the log names it", "registry-mirrors"),
        (Config(admin=AdminOptions(listen=Address("", 0))), "metrics    on a free port", ":0/"),
        (Config(upstreams=(UpstreamOptions(name="ghcr.io", url="https://ghcr.io"),)), "ghcr.io", "registry-mirrors"),
        (Config(), "anonymously; DOCKERHUB_USERNAME and DOCKERHUB_TOKEN raise the limit", "alice"),
    ],
)
def test_the_banner_gives_no_advice_that_cannot_work(config: Config, said: str, unsaid: str) -> None:
    text = banner(config, "cachehost")
    assert said in text
    assert unsaid not in text


@contextmanager
def serving(tmp_path: Path, admin_port: int, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """`serve` as a process of its own, until it answers /readyz."""
    settings = {"PULLTHROUGH_SERVER__LISTEN": "127.0.0.1:0", "PULLTHROUGH_ADMIN__LISTEN": f"127.0.0.1:{admin_port}"}
    command = [sys.executable, "-W", "error", "-m", "proxy", "serve"]
    with subprocess.Popen(command, env=os.environ | settings | environ, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], wanted: Callable[[str], bool]) -> str:
    """The lines of standard error up to the first that is wanted."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if wanted(line):
            return "".join(lines)
    pytest.fail("the process ended without it:\n" + "".join(lines))


def test_serve_greets_serves_and_ends_with_0_on_sigterm(tmp_path: Path, unused_port: int) -> None:
    environ = {"PULLTHROUGH_ADMIN__LISTEN": f"127.0.0.1:{unused_port}"}
    with serving(tmp_path, unused_port) as process:
        greeting = read_until(process, lambda line: "clients: http://127.0.0.1:" in line)
        assert greeting.startswith(f"pullthrough {__version__}\n")
        assert run("healthcheck", **environ).returncode == 0
        told = run("status", **environ)
        assert (told.returncode, told.stderr) == (0, "")
        assert "fills:   none running" in told.stdout
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


def test_serve_logs_nothing_but_json_when_asked_for_json(tmp_path: Path, unused_port: int) -> None:
    with serving(tmp_path, unused_port, PULLTHROUGH_LOG__FORMAT="json") as process:
        lines = read_until(process, lambda line: "clients: http://127.0.0.1:" in line)
    assert all(isinstance(json.loads(line), dict) for line in lines.splitlines())


def test_serve_says_what_to_do_when_the_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        told = run("serve", PULLTHROUGH_SERVER__LISTEN=listen, PULLTHROUGH_ADMIN__LISTEN="127.0.0.1:0")
    assert told.returncode == 1
    assert f"pullthrough: cannot listen on {listen}" in told.stderr
    assert "Traceback" not in told.stderr


def test_serve_says_what_to_do_when_the_folder_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    told = run("serve", PULLTHROUGH_SERVER__LISTEN="127.0.0.1:0", PULLTHROUGH_ADMIN__LISTEN="127.0.0.1:0")
    assert told.returncode == 1
    assert "pullthrough: cannot use the cache folder" in told.stderr
    assert "Traceback" not in told.stderr
