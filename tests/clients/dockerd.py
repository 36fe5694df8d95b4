"""A dockerd of its own, with the cache as `registry-mirrors`."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .mounts import unmount_below
from .processes import CommandFailed, Process, clean_environment, run, wait_until


class Dockerd:
    """A running dockerd and the docker command that talks to it."""

    def __init__(self, directory: Path) -> None:
        self._host = f"unix://{directory}/docker.sock"
        self._environment = clean_environment(directory, DOCKER_CONFIG=str(directory / "cli"))

    def pull(self, name: str) -> str:
        return self.docker("pull", name)

    def forget(self, name: str) -> None:
        """Remove an image and its layers."""
        self.docker("image", "rm", "--force", name)

    def run(self, name: str, *command: str) -> str:
        """Run a container without a network and return what it printed."""
        return self.docker("run", "--rm", "--network", "none", name, *command).strip()

    def digests(self, name: str) -> list[str]:
        """Return the digests under which dockerd says it pulled this image."""
        digests: list[str] = json.loads(self.docker("image", "inspect", "--format", "{{json .RepoDigests}}", name))
        return [each.partition("@")[2] for each in digests]

    def docker(self, *arguments: str) -> str:
        return run(["docker", "--host", self._host, *arguments], env=self._environment, timeout=180)

    def is_up(self) -> bool:
        try:
            self.docker("version")
        except CommandFailed:
            return False
        return True


@contextmanager
def dockerd(mirror: str, log: Path) -> Iterator[Dockerd]:
    """Start a dockerd with nothing in it, and remove all it made.

    The storage driver is its own choice: overlay2 where that can be mounted, vfs at the worst.
    """
    # Not below the test's own folder: a socket's path may have 107 characters, and containerd's name is long.
    directory = Path(tempfile.mkdtemp(prefix="pt-dockerd-"))
    # Only here can the daemon be told to leave /etc/docker alone.
    (directory / "daemon.json").write_text(json.dumps({"deprecated-key-path": str(directory / "key.json")}))
    command = [
        "dockerd",
        "--log-level=warn",
        f"--config-file={directory}/daemon.json",
        f"--data-root={directory}/data",
        f"--exec-root={directory}/exec",
        f"--pidfile={directory}/pid",
        f"--host=unix://{directory}/docker.sock",
        # No bridge and no firewall rules: the host's network stays as it is.
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        f"--registry-mirror={mirror}",
    ]
    try:
        with Process(command, log, env=clean_environment(directory)) as process:
            daemon = Dockerd(directory)
            wait_until(daemon.is_up, "dockerd answers", process=process)
            yield daemon
    finally:
        unmount_below(directory)
        shutil.rmtree(directory)
