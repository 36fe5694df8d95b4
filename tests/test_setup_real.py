"""What `pullthrough setup --write` puts in place, as the real clients read it: where do their requests go?"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from proxy.cli import main
from tests.cli_rig import bare_environment
from tests.clients.containerd import containerd
from tests.clients.mounts import unmount_below
from tests.clients.processes import CommandFailed, Process, clean_environment, run, wait_until
from tests.programs import require_program, skip_or_fail

__all__ = ["bare_environment"]  # A fixture: used by its name.

pytestmark = pytest.mark.clients


class Listener:
    """Stands where the cache would: answers `/v2/` as it does, has no image, and keeps what was asked."""

    def __init__(self, server: ThreadingHTTPServer, targets: list[str]) -> None:
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self.targets = targets


@pytest.fixture
def listener() -> Iterator[Listener]:
    targets: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            targets.append(self.path)
            self.send_response(200 if self.path == "/v2/" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Listener(server, targets)
        server.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `/` is, with a configuration of two upstreams."""
    if os.geteuid() != 0:
        skip_or_fail("needs root")
    config = tmp_path / "pullthrough.toml"
    config.write_text('[[upstream]]\nname = "docker.io"\n[[upstream]]\nname = "ghcr.io"\n')
    monkeypatch.setenv("PULLTHROUGH_CONFIG", str(config))
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def scratch() -> Iterator[Path]:
    """For what has sockets in it, whose paths must be short."""
    folder = Path(tempfile.mkdtemp(prefix="pt-"))
    yield folder
    unmount_below(folder)
    shutil.rmtree(folder)


def write(client: str, root: Path, url: str) -> None:
    assert main(["setup", client, "--write", "--root", str(root), "--url", url]) == 0


def test_dockerd_reads_the_merged_file_and_a_reload_is_enough(root: Path, scratch: Path, listener: Listener) -> None:
    require_program("dockerd", "docker.io")
    require_program("docker", "docker.io")
    path = root / "etc/docker/daemon.json"
    path.parent.mkdir(parents=True)
    # Only here can the daemon be told to leave /etc/docker alone.
    path.write_text(json.dumps({"deprecated-key-path": f"{scratch}/key.json", "labels": ["kept=yes"]}))
    host = f"unix://{scratch}/docker.sock"
    folders = [f"--data-root={scratch}/data", f"--exec-root={scratch}/exec", f"--pidfile={scratch}/pid"]
    network = ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    command = ["dockerd", f"--config-file={path}", f"--host={host}", "--log-level=warn", *folders, *network]
    environment = clean_environment(scratch, DOCKER_CONFIG=str(scratch / "cli"))

    def docker(*arguments: str) -> str:
        return run(["docker", "--host", host, *arguments], env=environment)

    def is_up() -> bool:
        try:
            docker("version")
        except CommandFailed:
            return False
        return True

    with Process(command, scratch / "dockerd.log", env=environment) as process:
        wait_until(is_up, "dockerd answers", process=process)
        assert json.loads(docker("info", "--format", "{{json .RegistryConfig.Mirrors}}")) in (None, [])

        write("dockerd", root, listener.url)
        os.kill(process.pid, signal.SIGHUP)

        wait_until(lambda: listener.url in docker("info"), "dockerd has the mirror", process=process)
        assert json.loads(docker("info", "--format", "{{json .Labels}}")) == ["kept=yes"]
        with pytest.raises(CommandFailed):
            docker("pull", "alpine:3")
        assert "/v2/library/alpine/manifests/3" in listener.targets


def test_containerd_asks_for_every_upstream_and_names_it(root: Path, tmp_path: Path, listener: Listener) -> None:
    require_program("containerd", "containerd")
    require_program("ctr", "containerd")
    write("containerd", root, listener.url)
    with containerd(listener.url, tmp_path / "containerd.log") as daemon:
        for name in ("docker.io/library/alpine:3", "ghcr.io/acme/app:1"):
            with pytest.raises(CommandFailed):
                daemon.ctr("content", "fetch", "--hosts-dir", f"{root}/etc/containerd/certs.d", name)
    assert "/v2/library/alpine/manifests/3?ns=docker.io" in listener.targets
    assert "/v2/acme/app/manifests/1?ns=ghcr.io" in listener.targets


def test_the_registry_itself_is_still_asked_after_the_cache(root: Path, tmp_path: Path, listener: Listener) -> None:
    """Its address is not ours to say: without `server`, containerd takes its own."""
    require_program("containerd", "containerd")
    require_program("ctr", "containerd")
    write("containerd", root, listener.url)
    with (
        containerd(listener.url, tmp_path / "containerd.log") as daemon,
        pytest.raises(CommandFailed, match=r"https://registry-1\.docker\.io/v2/library/alpine/manifests/3"),
    ):
        hosts = f"{root}/etc/containerd/certs.d"
        daemon.ctr("content", "fetch", "--hosts-dir", hosts, "docker.io/library/alpine:3")


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("docker.io/library/alpine:3", "/v2/library/alpine/manifests/3"),
        ("ghcr.io/acme/app:1", "/v2/ghcr.io/acme/app/manifests/1"),
    ],
)
def test_skopeo_asks_where_the_drop_in_says(
    root: Path, tmp_path: Path, listener: Listener, name: str, asked: str
) -> None:
    require_program("skopeo", "skopeo")
    write("podman", root, listener.url)
    drop_in = root / "etc/containers/registries.conf.d/50-pullthrough.conf"
    inspect = ["skopeo", "--registries-conf", str(drop_in), "inspect", f"docker://{name}"]
    done = subprocess.run(inspect, env=clean_environment(tmp_path), capture_output=True, timeout=120, check=False)
    assert done.returncode != 0
    assert asked in listener.targets


def test_podman_lists_every_upstream_with_the_cache_as_its_mirror(root: Path, scratch: Path) -> None:
    require_program("podman", "podman")
    write("crio", root, "http://cache:5000")
    drop_in = root / "etc/containers/registries.conf.d/50-pullthrough.conf"
    environment = clean_environment(scratch, CONTAINERS_REGISTRIES_CONF=str(drop_in))
    storage = ["--root", f"{scratch}/storage", "--runroot", f"{scratch}/run", "--storage-driver", "vfs"]
    shown = run(["podman", *storage, "--tmpdir", f"{scratch}/libpod", "info", "--format", "json"], env=environment)
    registries = json.loads(shown)["registries"]
    mirrors = {name: [each["Location"] for each in registries[name]["Mirrors"]] for name in ("docker.io", "ghcr.io")}
    assert mirrors == {"docker.io": ["cache:5000"], "ghcr.io": ["cache:5000/ghcr.io"]}
    assert all(registries[name]["Mirrors"][0]["Insecure"] for name in mirrors)
