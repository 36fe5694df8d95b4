"""A containerd of its own, and `ctr` with a hosts.toml that names the cache."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .mounts import unmount_below
from .processes import CommandFailed, Process, clean_environment, run, wait_until


class Containerd:
    """A running containerd and the ctr command that talks to it."""

    def __init__(self, directory: Path) -> None:
        self._socket = f"{directory}/sock"
        self._certs = directory / "certs.d"
        # ctr itself resolves and fetches; containerd only stores, and has no use for this.
        self._hosts = ("--hosts-dir", f"{directory}/certs.d")
        self._environment = clean_environment(directory)

    def use_hosts(self, namespace: str, hosts: str) -> None:
        """Write this hosts.toml for a registry; it counts from the next pull on."""
        file = self._certs / namespace / "hosts.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(hosts)

    def pull(self, name: str) -> str:
        return self.ctr("images", "pull", *self._hosts, name)

    def fetch(self, name: str, *options: str) -> str:
        """Pull without unpacking: what is no file system, such as an attestation, cannot be unpacked by ctr 1.6."""
        return self.ctr("content", "fetch", *self._hosts, *options, name)

    def forget(self, name: str) -> None:
        """Remove an image and all that only it needs; return when that is gone."""
        self.ctr("images", "rm", "--sync", name)

    def run(self, name: str, *command: str) -> str:
        """Run a container, which has no network, and return what it printed."""
        return self.ctr("run", "--rm", name, "tested", *command).strip()

    def digest(self, name: str) -> str:
        """Return the digest an image's name stands for."""
        row = self.ctr("images", "ls", f"name=={name}").splitlines()[1]
        return row.split()[2]

    def content(self) -> set[str]:
        """Return the digests of everything in the content store."""
        return set(self.ctr("content", "ls", "--quiet").split())

    def ctr(self, *arguments: str) -> str:
        return run(["ctr", "--address", self._socket, *arguments], env=self._environment)

    def is_up(self) -> bool:
        try:
            self.ctr("version")
        except CommandFailed:
            return False
        return True


def hosts_toml(mirror: str, *lines: str) -> str:
    """Return a hosts.toml with one mirror and, for when that fails, nothing else."""
    return "\n".join((f'server = "{mirror}"\n', f'[host."{mirror}"]', 'capabilities = ["pull", "resolve"]', *lines, ""))


@contextmanager
def containerd(mirror: str, log: Path) -> Iterator[Containerd]:
    """Start a containerd with nothing in it, and remove all it made."""
    directory = Path(tempfile.mkdtemp(prefix="pt-ctr-"))  # short, for the sockets' sake
    # Without the CRI plugin it needs no network plugins.
    (directory / "config.toml").write_text(
        f'version = 2\nroot = "{directory}/root"\nstate = "{directory}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{directory}/sock"\n'
    )
    command = ["containerd", "--log-level=warn", f"--config={directory}/config.toml"]
    try:
        with Process(command, log, env=clean_environment(directory)) as process:
            daemon = Containerd(directory)
            daemon.use_hosts("docker.io", hosts_toml(mirror))
            wait_until(daemon.is_up, "containerd answers", process=process)
            yield daemon
    finally:
        unmount_below(directory)
        shutil.rmtree(directory)
