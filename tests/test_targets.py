"""What a request path asks for."""

from __future__ import annotations

import pytest

from proxy.oci.errors import DigestInvalid, NameInvalid, NameUnknown, NotServed, RegistryError, TagInvalid
from proxy.server.targets import BaseTarget, BlobTarget, ManifestTarget, Target, Targets

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"
TARGETS = Targets(["docker.io", "ghcr.io", "registry.example:5000"])


def read(raw_target: str) -> tuple[Target, str | None]:
    """As the routes do it."""
    namespace = TARGETS.namespace(raw_target)
    return TARGETS.parse(raw_target, namespace), namespace


@pytest.mark.parametrize(
    ("raw_target", "repository"),
    [
        ("/v2/library/alpine/manifests/latest", "docker.io/library/alpine"),
        ("/v2/alpine/manifests/latest", "docker.io/library/alpine"),
        ("/v2/library/alpine/manifests/latest?ns=docker.io", "docker.io/library/alpine"),
        ("/v2/library/alpine/manifests/latest?ns=index.docker.io", "docker.io/library/alpine"),
        ("/v2/library/alpine/manifests/latest?ns=registry-1.docker.io", "docker.io/library/alpine"),
        ("/v2/org/app/manifests/latest?ns=ghcr.io", "ghcr.io/org/app"),
        ("/v2/app/manifests/latest?ns=ghcr.io", "ghcr.io/app"),
        ("/v2/app/manifests/latest?ns=registry.example%3A5000", "registry.example:5000/app"),
        ("/v2/docker.io/library/alpine/manifests/latest", "docker.io/library/alpine"),
        ("/v2/docker.io/alpine/manifests/latest", "docker.io/library/alpine"),
        ("/v2/index.docker.io/alpine/manifests/latest", "docker.io/library/alpine"),
        ("/v2/ghcr.io/org/app/manifests/latest", "ghcr.io/org/app"),
        ("/v2/ghcr.io/org/app/manifests/latest?ns=ghcr.io", "ghcr.io/org/app"),
        ("/v2/registry.example:5000/app/manifests/latest", "registry.example:5000/app"),
        ("/docker.io/v2/library/alpine/manifests/latest", "docker.io/library/alpine"),
        ("/docker.io/v2/alpine/manifests/latest?ns=docker.io", "docker.io/library/alpine"),
        ("/ghcr.io/v2/org/app/manifests/latest?ns=ghcr.io", "ghcr.io/org/app"),
        ("/v2/a/manifests/b/manifests/latest", "docker.io/a/manifests/b"),
        ("/v2/a/blobs/b/manifests/latest", "docker.io/a/blobs/b"),
        ("/v2/manifests/blobs/manifests/latest", "docker.io/manifests/blobs"),
        ("/v2/tags/list/manifests/latest", "docker.io/tags/list"),
        ("/v2/manifests/manifests/latest", "docker.io/library/manifests"),
        ("/v2/v2/app/manifests/latest", "docker.io/v2/app"),
        ("/v2/org/v2/app/manifests/latest", "docker.io/org/v2/app"),
        ("/v2/library%2Falpine/manifests/latest", "docker.io/library/alpine"),
    ],
)
def test_every_shape_of_path_names_its_repository(raw_target: str, repository: str) -> None:
    target, _ = read(raw_target)
    assert isinstance(target, ManifestTarget)
    assert (str(target.repository), str(target.reference)) == (repository, "latest")


@pytest.mark.parametrize("colon", [":", "%3A", "%3a"])
def test_blobs_and_manifests_are_named_by_digest(colon: str) -> None:
    blob, _ = read(f"/v2/a/manifests/b/blobs/sha256{colon}{HEX}")
    manifest, _ = read(f"/v2/a/blobs/b/manifests/sha256{colon}{HEX}")
    assert isinstance(blob, BlobTarget)
    assert isinstance(manifest, ManifestTarget)
    assert (str(blob.repository), str(blob.digest)) == ("docker.io/a/manifests/b", DIGEST)
    assert (str(manifest.repository), str(manifest.reference)) == ("docker.io/a/blobs/b", DIGEST)


@pytest.mark.parametrize(
    "raw_target",
    ["/v2/", "/v2", "/docker.io/v2/", "/docker.io/v2", "/ghcr.io/v2/", "/index.docker.io/v2/", "/v2/?ns=ghcr.io"],
)
def test_the_base_is_found_at_every_root(raw_target: str) -> None:
    assert isinstance(read(raw_target)[0], BaseTarget)


@pytest.mark.parametrize(
    ("query", "namespace"),
    [
        ("", None),
        ("?ns=", None),
        ("?other=1", None),
        ("?nothing=docker.io&xns=ghcr.io", None),
        ("?ns=ghcr.io", "ghcr.io"),
        ("?ns=index.docker.io", "index.docker.io"),
        ("?other=1&ns=ghcr.io", "ghcr.io"),
        ("?ns=ghcr.io&ns=ghcr.io", "ghcr.io"),
        ("?" + "a=1&" * 2000 + "ns=ghcr.io", "ghcr.io"),
        ("?ns=ghcr.io" + "&b" * 4000, "ghcr.io"),
    ],
)
def test_the_namespace_is_what_the_query_says(query: str, namespace: str | None) -> None:
    assert read(f"/v2/{query}")[1] == namespace


@pytest.mark.parametrize(
    "raw_target",
    [
        "/v2/?ns=evil.example",
        "/v2/a/b/manifests/latest?ns=evil.example",
        "/v2/a/b/manifests/latest?ns=docker.io%0d%0aX-Evil:%201",
        "/v2/a/b/manifests/latest?ns=http://docker.io",
        "/v2/a/b/manifests/latest?ns=docker.io:443",
        "/v2/a/b/manifests/latest?ns=%ff",
        "/evil.example/v2/",
        "/evil.example/v2/a/b/manifests/latest",
        "/evil%0d%0a/v2/a/b/manifests/latest",
    ],
)
def test_an_upstream_that_is_not_configured_is_refused_with_the_known_ones(raw_target: str) -> None:
    with pytest.raises(NameUnknown) as refusal:
        read(raw_target)
    assert refusal.value.message.endswith("known are: docker.io, ghcr.io, registry.example:5000")
    assert "evil" not in refusal.value.message


@pytest.mark.parametrize(
    "raw_target",
    [
        "/v2/ghcr.io/org/app/manifests/latest?ns=docker.io",
        "/v2/docker.io/org/app/manifests/latest?ns=ghcr.io",
        "/ghcr.io/v2/org/app/manifests/latest?ns=docker.io",
    ],
)
def test_a_path_and_a_query_that_name_two_registries_are_refused(raw_target: str) -> None:
    with pytest.raises(NameUnknown, match="different registries"):
        read(raw_target)


def test_a_query_that_names_two_registries_is_refused() -> None:
    with pytest.raises(NameInvalid):
        read("/v2/org/app/manifests/latest?ns=docker.io&ns=ghcr.io")


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v2/..%2f..%2fetc/manifests/x", NameInvalid),
        ("/v2/../../etc/manifests/x", NameInvalid),
        ("/v2//a/manifests/x", NameInvalid),
        ("/v2/a//b/manifests/x", NameInvalid),
        ("/v2/a/b//manifests/x", NameInvalid),
        ("/v2/Library/alpine/manifests/x", NameInvalid),
        (f"/v2/{'a' * 256}/manifests/x", NameInvalid),
        ("/v2/a/b%0a/manifests/x", NameInvalid),
        ("/v2/a/b%00/manifests/x", NameInvalid),
        ("/v2/a/b%ff/manifests/x", NameInvalid),
        ("/v2/a/%c3%a9/manifests/x", NameInvalid),
        ("/v2/a/%d9%a1/manifests/x", NameInvalid),
        ("/v2/a%252fb/manifests/x", NameInvalid),
        ("/v2/a b/manifests/x", NameInvalid),
        ("/v2/a..b/manifests/x", NameInvalid),
        ("/v2/-a/manifests/x", NameInvalid),
        ("/v2/docker.io//alpine/manifests/x", NameInvalid),
        ("/v2/unknown.example/a/manifests/x", NameUnknown),
        ("/v2/unknown.example:5000/a/manifests/x", NameUnknown),
        ("/v2/cache:5000/a/manifests/x", NameUnknown),
        ("/v2/localhost/a/manifests/x", NameUnknown),
        ("/v2/../a/manifests/x", NameInvalid),
        ("/v2/-a.b/a/manifests/x", NameInvalid),
        ("/v2/a/b/manifests/", TagInvalid),
        ("/v2/a/b/manifests/x%0a", TagInvalid),
        ("/v2/a/b/manifests/.x", TagInvalid),
        ("/v2/a/b/manifests/..", TagInvalid),
        (f"/v2/a/b/manifests/{'t' * 129}", TagInvalid),
        ("/v2/a/b/manifests/%2e%2e", TagInvalid),
        (f"/v2/a/b/manifests/{DIGEST}%0a", DigestInvalid),
        (f"/v2/a/b/manifests/sha256:{HEX.upper()}", DigestInvalid),
        ("/v2/a/b/manifests/sha256:", DigestInvalid),
        ("/v2/a/b/blobs/", DigestInvalid),
        ("/v2/a/b/blobs/sha256:aa%0a", DigestInvalid),
        (f"/v2/a/b/blobs/{DIGEST}%0a", DigestInvalid),
        (f"/v2/a/b/blobs/sha256:{HEX.upper()}", DigestInvalid),
        (f"/v2/a/b/blobs/SHA256:{HEX}", DigestInvalid),
        (f"/v2/a/b/blobs/sha256:{HEX}0", DigestInvalid),
        (f"/v2/a/b/blobs/sha512:{HEX}", DigestInvalid),
        (f"/v2/a/b/blobs/md5:{HEX[:32]}", DigestInvalid),
        (f"/v2/a/b/blobs/{HEX}", DigestInvalid),
        ("/v2/a/b/blobs/latest", DigestInvalid),
        (f"/v2/a/b/blobs/..%2f{DIGEST}", NotServed),
        ("/", NotServed),
        ("", NotServed),
        ("*", NotServed),
        ("http://cache/v2/", NotServed),
        ("/v2//", NotServed),
        ("//v2/", NotServed),
        ("/v3/a/b/manifests/x", NotServed),
        ("/v1/search", NotServed),
        ("/v1/_ping", NotServed),
        ("/v2/_catalog", NotServed),
        ("/v2/a/b/tags/all", NotServed),
        ("/v2/a/b/referrers/latest", DigestInvalid),
        ("/v2/a/b/blobs/uploads/", NotServed),
        ("/v2/manifests/x", NotServed),
        ("/metrics", NotServed),
        ("/healthz", NotServed),
    ],
)
def test_what_does_not_follow_the_grammar_is_refused(path: str, error: type[RegistryError]) -> None:
    with pytest.raises(error):
        read(path)


def test_names_and_tags_may_be_as_long_as_the_specification_allows() -> None:
    target, _ = read(f"/v2/{'a' * 255}/manifests/{'t' * 128}?ns=ghcr.io")
    assert isinstance(target, ManifestTarget)


def test_sha512_is_a_digest_too() -> None:
    target, _ = read(f"/v2/a/b/blobs/sha512:{HEX}{HEX}")
    assert isinstance(target, BlobTarget)


def test_a_name_may_look_like_a_host_where_the_upstream_is_not_docker_hub() -> None:
    target = Targets(["registry.example:5000"]).parse("/v2/team.a/app/manifests/latest")

    assert isinstance(target, ManifestTarget)
    assert str(target.repository) == "registry.example:5000/team.a/app"
