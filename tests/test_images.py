"""Names of images as people write them."""

from __future__ import annotations

import pytest

from proxy.oci.errors import RegistryError
from proxy.oci.images import ImageName, familiar
from proxy.oci.names import Digest

DIGEST = str(Digest.of(b"one"))
HUB = ("docker.io", "ghcr.io", "internal")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("alpine", "docker.io/library/alpine"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("library/alpine", "docker.io/library/alpine"),
        ("docker.io/alpine:3.20", "docker.io/library/alpine:3.20"),
        ("index.docker.io/owner/app", "docker.io/owner/app"),
        ("owner/app:v1", "docker.io/owner/app:v1"),
        (f"ghcr.io/owner/app@{DIGEST}", f"ghcr.io/owner/app@{DIGEST}"),
        (f"alpine:3.20@{DIGEST}", f"docker.io/library/alpine@{DIGEST}"),
        ("localhost/app", "localhost/app"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("localhost:5000", "docker.io/library/localhost:5000"),
        ("internal/app:1", "internal/app:1"),
        ("external/app:1", "docker.io/external/app:1"),
        ("quay.io/a/b/c", "quay.io/a/b/c"),
    ],
)
def test_names_mean_what_docker_means_by_them(text: str, meant: str) -> None:
    assert str(ImageName.parse(text, HUB)) == meant


def test_without_a_registry_the_first_upstream_is_meant() -> None:
    assert str(ImageName.parse("app:1", ("quay.io", "docker.io"))) == "quay.io/app:1"
    assert str(ImageName.parse("docker.io/app", ("quay.io", "docker.io"))) == "docker.io/library/app"


@pytest.mark.parametrize(
    "text",
    [
        *("", "Alpine", "alpine:", ":3.20", "alpine@", "alpine@sha256:12", "alpine:3.20:1", "a//b", "../etc/passwd"),
        *("alpine\n", "evil.example:99999999/a", "-.example/a", "a b.example/c", "alpine:3 20", "/alpine", "ghcr.io/"),
        "x" * 300,
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(RegistryError):
        ImageName.parse(text, HUB)


@pytest.mark.parametrize(
    ("repository", "default", "shown"),
    [
        ("docker.io/library/alpine", "docker.io", "alpine"),
        ("docker.io/owner/app", "docker.io", "owner/app"),
        ("docker.io/library/a/b", "docker.io", "library/a/b"),
        ("docker.io/library/alpine", "quay.io", "docker.io/library/alpine"),
        ("quay.io/app", "quay.io", "app"),
        ("quay.io/library/app", "quay.io", "library/app"),
        ("quay.io/a.b/app", "quay.io", "quay.io/a.b/app"),
        ("ghcr.io/owner/app", "docker.io", "ghcr.io/owner/app"),
    ],
)
def test_the_familiar_name_means_the_same_repository(repository: str, default: str, shown: str) -> None:
    assert familiar(repository, default) == shown
    assert str(ImageName.parse(shown, (default,)).repository) == repository
