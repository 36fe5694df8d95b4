"""What the tests share: one upstream with its images for all of them, an empty cache and empty clients for each."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Protocol

import pytest

from .cache import Cache
from .images import MIB, Image, Publisher
from .upstream import Upstream

# What each program comes from, in Debian's words.
_PACKAGES: Final = {
    "buildah": "buildah",
    "busybox": "busybox-static",
    "containerd": "containerd",
    "ctr": "containerd",
    "docker": "docker.io",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "podman": "podman",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "runc": "runc",
    "skopeo": "skopeo",
}
_ALWAYS: Final = ("busybox", "docker-registry")
_PUBLIC: Final = (
    "library/busybox",
    "acme/sixty",
    "acme/gigabyte",
    "acme/crowd",
    "acme/steps",
    "acme/huge",
    "acme/several",
    "acme/small",
)
_PRIVATE: Final = ("alice/secret",)

Say = Callable[[str], None]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run and say why; fail instead where everything is meant to run."""
    for marker in item.iter_markers("clients"):
        missing = sorted(
            {_PACKAGES[name] for name in (*_ALWAYS, *marker.args) if shutil.which(name, path=_path()) is None}
        )
        reason = (
            f"missing Debian packages: {' '.join(missing)}" if missing else "needs root" if os.getuid() != 0 else ""
        )
        if reason and os.environ.get("PULLTHROUGH_REQUIRE_CLIENTS") == "1":
            pytest.fail(reason, pytrace=False)
        elif reason:
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the ends of the logs beside a failure: the folder they are in is gone afterwards."""
    report = yield
    made = getattr(item, "funcargs", {})
    directory = made["bed"].directory if "bed" in made else made.get("scratch")
    if report.failed and isinstance(directory, Path):
        for log in sorted(directory.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-40:]
            report.sections.append((f"end of {log.name}", "\n".join(lines)))
    return report


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Say:
    """Tell whoever waits what is being done; shown even while pytest captures output."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    begin = time.monotonic()

    def line(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n  [{time.monotonic() - begin:5.1f} s] {text}", end=" ", flush=True)

    return line


@pytest.fixture(scope="session")
def hub() -> Iterator[Upstream]:
    """The one upstream of the session."""
    with (
        tempfile.TemporaryDirectory(prefix="pt-hub-") as directory,
        Upstream(Path(directory), public=_PUBLIC, private=_PRIVATE) as upstream,
    ):
        yield upstream


@pytest.fixture
def upstream(hub: Upstream) -> Iterator[Upstream]:
    """The upstream, with nothing counted and nothing wrong; and what no client of it may ever do was not done."""
    hub.reset()
    hub.violations.clear()
    yield hub
    hub.reset()
    assert hub.violations == []


@pytest.fixture(scope="session")
def publisher(hub: Upstream) -> Publisher:
    return Publisher(hub.origin)


@pytest.fixture(scope="session")
def busybox(publisher: Publisher) -> Image:
    """An official image: a multi-arch index with an attestation."""
    return publisher.busybox("library/busybox")


@pytest.fixture(scope="session")
def secret(publisher: Publisher) -> Image:
    """An image only the account may pull."""
    return publisher.layered("alice/secret", 2)


@pytest.fixture(scope="session")
def sixty(publisher: Publisher) -> Image:
    """An image of 60 layers."""
    return publisher.layered("acme/sixty", 60)


@pytest.fixture(scope="session")
def steps(publisher: Publisher) -> Image:
    """An image with one layer of 64 MiB, to be interrupted in."""
    return publisher.heavy("acme/steps", [64 * MIB])


@pytest.fixture(scope="session")
def crowd(publisher: Publisher, say: Say) -> Image:
    """An image of several hundred MiB."""
    say("publishing an image of 384 MiB")
    return publisher.heavy("acme/crowd", [96 * MIB] * 4)


@pytest.fixture(scope="session")
def gigabyte(publisher: Publisher, say: Say) -> Image:
    """An image with one layer of 1 GiB."""
    say("publishing a layer of 1 GiB")
    return publisher.heavy("acme/gigabyte", [1024 * MIB])


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for one test, with all its logs; unlike `tmp_path` it is not kept."""
    with tempfile.TemporaryDirectory(prefix="pt-test-") as directory:
        yield Path(directory)


class StartCache(Protocol):
    def __call__(self, **settings: dict[str, str | bool]) -> Cache: ...


@pytest.fixture
def start_cache(upstream: Upstream, scratch: Path) -> Iterator[StartCache]:
    """Start a cache with settings of the test's own, on an empty folder; check that its log gave no secret away."""
    with ExitStack() as stack:

        def start(**settings: dict[str, str | bool]) -> Cache:
            return stack.enter_context(Cache(scratch, upstream, **settings))

        yield start
    log = scratch / "cache.log"
    written = log.read_text() if log.exists() else ""
    assert not [secret for secret in (upstream.pat, "verify=", "eyJ") if secret in written], "a secret is in the log"


@pytest.fixture
def cache(start_cache: StartCache) -> Cache:
    """A cache with its default settings."""
    return start_cache()
