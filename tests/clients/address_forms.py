"""Every client and every way in which it can write the cache's address; and the table of what came of it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Final

import pytest

from . import traces
from .cache import Cache
from .containerd import Containerd, containerd, hosts_toml
from .dockerd import Dockerd, dockerd
from .images import Image
from .podman import ContainersTools, containers_tools, registries_conf
from .traces import Address
from .upstream import Upstream

STAGES: Final = ("cold", "warm", "upstream down")


@dataclass
class Bed:
    """One cache in front of one upstream, and clients of it that are started when a form needs them."""

    cache: Cache
    hub: Upstream
    directory: Path
    closing: ExitStack

    @cached_property
    def dockerd(self) -> Dockerd:
        return self.closing.enter_context(dockerd(self.cache.url, self.directory / "dockerd.log"))

    @cached_property
    def containerd(self) -> Containerd:
        return self.closing.enter_context(containerd(self.cache.url, self.directory / "containerd.log"))

    @cached_property
    def tools(self) -> ContainersTools:
        return self.closing.enter_context(containers_tools(self.cache.url))

    @property
    def authority(self) -> str:
        """As it stands in the name of an image that is pulled from the cache itself."""
        return f"127.0.0.1:{self.cache.port}"


Pull = Callable[[Bed, Image], None]


@dataclass(frozen=True, slots=True)
class Form:
    """A client and an address. `pull` gets the whole image into an empty client and leaves it empty again."""

    client: str
    address: str
    programs: tuple[str, ...]
    pull: Pull
    cold: Pull | None = None  # instead of `pull` while nothing is cached

    @property
    def tag(self) -> str:
        """A tag of this form's own, so that what other forms pulled is not cached for it."""
        return "".join(letter if letter.isalnum() else "-" for letter in f"{self.client} {self.address}").strip("-")


@dataclass
class Table:
    """Client x address form x (cold, warm, upstream down), as Markdown."""

    cells: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    @contextmanager
    def cell(self, form: Form, stage: str) -> Iterator[Callable[[str], None]]:
        """Fill one cell: with the remark that is given to what is yielded, or with a failure."""
        row = self.cells.setdefault((form.client, form.address), {})
        row[stage] = "✗"

        def remark(text: str) -> None:
            row[stage] = f"✓ {text}"

        yield remark

    @property
    def succeeded(self) -> int:
        return sum(text.startswith("✓") for row in self.cells.values() for text in row.values())

    def markdown(self) -> str:
        """Return the table; a dash is a cell that was not reached."""
        head = ("client", "address", *STAGES)
        rows = [(*name, *(row.get(stage, "-") for stage in STAGES)) for name, row in self.cells.items()]
        return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)) + "\n"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the table at the end of the run."""
        terminalreporter.section("every client, every address form")
        terminalreporter.write_line(self.markdown())


def _dockerd(name: str, bed: Bed, image: Image) -> None:
    name = name.format(cache=bed.authority) + f":{image.tag}"
    bed.dockerd.pull(name)
    assert bed.dockerd.digests(name) == [image.digest]
    bed.dockerd.forget(name)


def _ctr(path: str, lines: tuple[str, ...], bed: Bed, image: Image) -> None:
    bed.containerd.use_hosts("docker.io", hosts_toml(bed.cache.url + path, *lines))
    bed.containerd.pull(image.name)
    assert bed.containerd.digest(image.name) == image.digest
    bed.containerd.forget(image.name)
    assert image.blobs[-1].digest not in bed.containerd.content()


def _mirror(bed: Bed, path: str, *lines: str) -> None:
    bed.tools.use_registries(registries_conf(bed.authority + path, *lines))


def _podman(path: str, bed: Bed, image: Image) -> None:
    _mirror(bed, path)
    bed.tools.podman_pull(image.name)
    assert bed.tools.podman_digest(image.name) == image.digest
    bed.tools.forget()


def _podman_digest_only(bed: Bed, image: Image) -> None:
    _mirror(bed, "/docker.io", 'pull-from-mirror = "digest-only"')
    name = f"docker.io/{image.repository}@{image.digest}"
    bed.tools.podman_pull(name)
    assert bed.tools.podman_digest(name) == image.digest
    bed.tools.forget()


def _podman_direct(bed: Bed, image: Image) -> None:
    bed.tools.use_registries(f'[[registry]]\nlocation = "{bed.authority}"\ninsecure = true\n')
    name = f"{bed.authority}/docker.io/{image.repository}:{image.tag}"
    bed.tools.podman_pull(name)
    assert bed.tools.podman_digest(name) == image.digest
    bed.tools.forget()


def _skopeo(path: str, bed: Bed, image: Image) -> None:
    _mirror(bed, path)
    _assert_copied(bed.tools.skopeo_copy(image.name), image)


def _skopeo_digest_only(bed: Bed, image: Image) -> None:
    _mirror(bed, "/docker.io", 'pull-from-mirror = "digest-only"')
    _assert_copied(bed.tools.skopeo_copy(f"docker.io/{image.repository}@{image.digest}"), image)


def _assert_copied(copy: Path, image: Image) -> None:
    # skopeo has verified the digests, after which it names the files.
    files = {file.name for file in copy.iterdir()}
    assert {blob.digest.removeprefix("sha256:") for blob in image.blobs} <= files
    assert (copy / "manifest.json").stat().st_size == image.manifests[-1].size


def _buildah(path: str, bed: Bed, image: Image) -> None:
    _mirror(bed, path)
    recipe = bed.directory / "Containerfile"
    recipe.write_text(f'FROM {image.name}\nRUN ["/bin/busybox", "cat", "/etc/mark"]\n')
    said = bed.tools.buildah("bud", "--isolation", "chroot", "--file", str(recipe), str(bed.tools.directory / "tmp"))
    assert image.tag in said
    bed.tools.forget()


def _trace(trace: Callable[[Address, Image], None], base: str, query: str, bed: Bed, image: Image) -> None:
    trace(Address(bed.cache.port, base.format(image.repository), query), image)


def _chunked_while_filling(bed: Bed, image: Image) -> None:
    layer = image.blobs[-1].digest
    at = Address(bed.cache.port, f"/v2/{image.repository}", "?ns=docker.io")
    with bed.hub.held(layer, after=traces.CHUNK + traces.CHUNK // 2):
        traces.containerd_2_chunked(at, image, while_filling=lambda: bed.hub.release(layer))


_DOCKERD: Final = ("dockerd", "docker", "runc")
_CTR: Final = ("containerd", "ctr", "runc")
_HUB: Final = "?ns=docker.io"

FORMS: Final = (
    Form("dockerd 20.10", "registry-mirrors", _DOCKERD, partial(_dockerd, "forms")),
    Form("dockerd 20.10", "cache/library/x", _DOCKERD, partial(_dockerd, "{cache}/library/forms")),
    Form("dockerd 20.10", "cache/x", _DOCKERD, partial(_dockerd, "{cache}/forms")),
    Form("dockerd 20.10", "cache/docker.io/library/x", _DOCKERD, partial(_dockerd, "{cache}/docker.io/library/forms")),
    Form("containerd 1.6", "hosts.toml", _CTR, partial(_ctr, "", ())),
    Form("containerd 1.6", "hosts.toml, /docker.io", _CTR, partial(_ctr, "/docker.io", ())),
    Form(
        "containerd 1.6",
        "hosts.toml, /v2/docker.io, override_path",
        _CTR,
        partial(_ctr, "/v2/docker.io", ("override_path = true",)),
    ),
    Form("podman 4.3", "mirror cache", ("podman",), partial(_podman, "")),
    Form("podman 4.3", "mirror cache/docker.io", ("podman",), partial(_podman, "/docker.io")),
    Form("podman 4.3", "mirror cache/docker.io, digest-only", ("podman",), _podman_digest_only),
    Form("podman 4.3", "cache/docker.io/library/x", ("podman",), _podman_direct),
    Form("skopeo 1.9", "mirror cache", ("skopeo",), partial(_skopeo, "")),
    Form("skopeo 1.9", "mirror cache/docker.io", ("skopeo",), partial(_skopeo, "/docker.io")),
    Form("skopeo 1.9", "mirror cache/docker.io, digest-only", ("skopeo",), _skopeo_digest_only),
    Form("buildah 1.28 FROM", "mirror cache", ("buildah", "podman"), partial(_buildah, "")),
    Form("buildah 1.28 FROM", "mirror cache/docker.io", ("buildah", "podman"), partial(_buildah, "/docker.io")),
    Form("dockerd 29 (trace)", "mirror cache", (), partial(_trace, traces.dockerd_29, "/v2/{}", _HUB)),
    Form(
        "dockerd 29 (trace)", "mirror cache/docker.io", (), partial(_trace, traces.dockerd_29, "/docker.io/v2/{}", _HUB)
    ),
    Form(
        "containerd 2.x in chunks (trace)",
        "hosts.toml",
        (),
        partial(_trace, traces.containerd_2_chunked, "/v2/{}", _HUB),
        cold=_chunked_while_filling,
    ),
    Form("BuildKit (trace)", "mirror cache", (), partial(_trace, traces.buildkit, "/v2/{}", _HUB)),
    Form("BuildKit (trace)", "mirror cache/docker.io", (), partial(_trace, traces.buildkit, "/v2/docker.io/{}", _HUB)),
    Form("kaniko, crane (trace)", "mirror cache", (), partial(_trace, traces.crane, "/v2/{}", "")),
    Form("kaniko, crane (trace)", "mirror cache/docker.io", (), partial(_trace, traces.crane, "/v2/docker.io/{}", "")),
    Form("podman zstd:chunked (trace)", "mirror cache", (), partial(_trace, traces.podman_zstd_chunked, "/v2/{}", "")),
)
