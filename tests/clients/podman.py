"""podman, buildah and skopeo: one library (containers/image), one registries.conf that names the cache as mirror."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .mounts import unmount_below
from .processes import clean_environment, run


class ContainersTools:
    """The three commands, with storage and configuration of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._environment = clean_environment(
            directory,
            CONTAINERS_REGISTRIES_CONF=str(directory / "registries.conf"),
            CONTAINERS_STORAGE_CONF=str(directory / "storage.conf"),
            TMPDIR=str(directory / "tmp"),
        )
        self._policy = str(directory / "policy.json")

    def use_registries(self, registries: str) -> None:
        """Write this registries.conf; it counts from the next command on."""
        (self.directory / "registries.conf").write_text(registries)

    def want_signatures(self) -> None:
        """Look for signatures as cosign attaches them. Debian's build does no more: it cannot verify them."""
        (self.directory / "registries.d/cosign.yaml").write_text("default-docker: {use-sigstore-attachments: true}\n")

    def forget(self) -> None:
        """Remove all images, and the containers that were made of them."""
        self._podman("rmi", "--all", "--force")

    def podman_pull(self, name: str) -> str:
        return self._podman("pull", "--quiet", "--signature-policy", self._policy, name)

    def podman_run(self, name: str, *command: str) -> str:
        """Run a container without a network and return what it printed."""
        # Its default limits are higher than a root without CAP_SYS_RESOURCE may set.
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        return self._podman("run", "--rm", "--network", "none", *limits, name, *command).strip()

    def podman_digest(self, name: str) -> str:
        """Return the digest an image's name stands for."""
        return self._podman("image", "inspect", "--format", "{{.Digest}}", name).strip()

    def buildah(self, command: str, *arguments: str) -> str:
        policy = ["--signature-policy", self._policy] if command in ("bud", "from", "pull") else []
        return run(["buildah", command, *policy, *arguments], env=self._environment).strip()

    def skopeo_copy(self, name: str, *options: str) -> Path:
        """Copy an image from its registry into a directory of plain files, and return that."""
        copy = Path(tempfile.mkdtemp(dir=self.directory))
        # Unlike the other two, skopeo does not take registries.conf from the environment.
        registries = (str(self.directory / "registries.conf"), str(self.directory / "registries.d"))
        where = ["--policy", self._policy, "--registries-conf", registries[0], "--registries.d", registries[1]]
        run(["skopeo", *where, "copy", "--quiet", *options, f"docker://{name}", f"dir:{copy}"], env=self._environment)
        return copy

    def _podman(self, *arguments: str) -> str:
        # runc and cgroupfs work on every host with cgroups of version 1, 2 or both; crun refuses the mixture.
        how = ["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        where = ["--tmpdir", str(self.directory / "libpod")]
        return run(["podman", *how, *where, *arguments], env=self._environment)


def registries_conf(mirror: str, *lines: str, registry: str = "docker.io") -> str:
    """Return the part of a registries.conf that gives a registry this mirror, with further settings of the mirror."""
    return "\n".join(
        (
            f'[[registry]]\nprefix = "{registry}"\nlocation = "{registry}"\n',
            f'[[registry.mirror]]\nlocation = "{mirror}"\ninsecure = true',
            *lines,
            "",
        )
    )


@contextmanager
def containers_tools(mirror: str) -> Iterator[ContainersTools]:
    """Give the three commands an empty storage, and remove all they made."""
    directory = Path(tempfile.mkdtemp(prefix="pt-podman-"))
    for folder in ("tmp", "registries.d"):
        (directory / folder).mkdir()
    (directory / "policy.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    (directory / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{directory}/root"\nrunroot = "{directory}/run"\n'
    )
    tools = ContainersTools(directory)
    tools.use_registries(registries_conf(mirror.removeprefix("http://")))
    try:
        yield tools
    finally:
        unmount_below(directory)
        shutil.rmtree(directory)
