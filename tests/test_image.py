"""The Dockerfile, really built by buildah on a base that is made offline, and its result really run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy import __version__
from tests.image_base import make_root
from tests.ports import free_port
from tests.programs import require_program, skip_or_fail

pytestmark = pytest.mark.clients

ROOT = Path(__file__).parent.parent
BASE = "localhost/base:offline"
IMAGE = "localhost/pullthrough:test"


class Buildah:
    """Buildah with a storage of its own. Chroot isolation needs neither namespaces nor a runtime."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._policy = folder / "policy.json"
        self._policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))

    def command(self, *arguments: str) -> list[str]:
        storage = ["--root", str(self._folder / "storage"), "--runroot", str(self._folder / "run")]
        return ["buildah", *storage, "--storage-driver", "vfs", *arguments]

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"buildah {arguments[0]}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def make_base(self, root: Path) -> None:
        container = self("from", "scratch")
        self("copy", "--quiet", container, str(root), "/")
        environ = {"PATH": "/usr/local/bin", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheelhouse"}
        for name, value in environ.items():
            self("config", "--env", f"{name}={value}", container)
        self("commit", "--quiet", "--signature-policy", str(self._policy), container, BASE)
        self("rm", container)

    def build(self, wheelhouse: Path) -> None:
        where = [
            "--isolation",
            "chroot",
            "--format",
            "docker",
            "--pull-never",
            "--volume",
            f"{wheelhouse}:/wheelhouse:ro",
        ]
        policy = ["--signature-policy", str(self._policy)]
        self("bud", *where, *policy, "--build-arg", f"BASE={BASE}", "--tag", IMAGE, str(ROOT))

    def container(self) -> str:
        return self("from", "--pull-never", "--signature-policy", str(self._policy), IMAGE)


@pytest.fixture(scope="module")
def buildah() -> Iterator[Buildah]:
    """With the image in its storage."""
    require_program("buildah", "buildah")
    if os.geteuid() != 0:
        skip_or_fail("building an image needs root")
    folder = Path(tempfile.mkdtemp(prefix="pullthrough-image-"))
    try:
        (folder / "root").mkdir()
        make_root(folder / "root")
        fetch_wheels(folder / "wheelhouse")
        tool = Buildah(folder)
        tool.make_base(folder / "root")
        tool.build(folder / "wheelhouse")
        yield tool
    finally:
        shutil.rmtree(folder)


def fetch_wheels(folder: Path) -> None:
    """What the locks name, so that the build itself can go without a network."""
    for lock in ("requirements.lock", "requirements-build.lock"):
        options = [
            "--quiet",
            "--require-hashes",
            "--only-binary",
            ":all:",
            "--dest",
            str(folder),
            "-r",
            str(ROOT / lock),
        ]
        done = subprocess.run([sys.executable, "-m", "pip", "download", *options], check=False)
        if done.returncode != 0:
            skip_or_fail("the package registry cannot be reached")


@pytest.fixture(scope="module")
def container(buildah: Buildah) -> str:
    return buildah.container()


def test_the_image_says_how_it_runs(buildah: Buildah) -> None:
    config: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    assert config["User"] == "10001:10001"
    assert (config["Entrypoint"], config["Cmd"]) == (["pullthrough"], ["serve"])
    assert config["Healthcheck"]["Test"] == ["CMD", "pullthrough", "healthcheck"]
    assert list(config["Volumes"]) == ["/var/lib/pullthrough"]
    assert list(config["ExposedPorts"]) == ["5000/tcp"]


def test_the_image_holds_the_command(buildah: Buildah, container: str) -> None:
    said = buildah("run", "--isolation", "chroot", container, "--", "pullthrough", "--version")
    assert said == f"pullthrough {__version__}"


def test_the_image_serves_as_its_user_and_its_healthcheck_follows(buildah: Buildah, container: str) -> None:
    ports = [f"PULLTHROUGH_{section}__LISTEN=127.0.0.1:{free_port()}" for section in ("SERVER", "ADMIN")]
    run = ["run", "--isolation", "chroot", "--env", ports[0], "--env", ports[1], container, "--", "pullthrough"]
    with subprocess.Popen(buildah.command(*run, "serve"), stderr=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stderr is not None
            said = []
            for line in serving.stderr:
                said.append(line)
                if "metrics and status: http://" in line:
                    break
            assert "/var/lib/pullthrough" in "".join(said)
            buildah(*run, "healthcheck")
        finally:
            serving.terminate()
    with pytest.raises(AssertionError, match="nothing listens"):
        buildah(*run, "healthcheck")
