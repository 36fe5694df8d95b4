"""The grammar of repositories, tags and digests (OCI distribution spec, "Pulling manifests")."""

from __future__ import annotations

import pytest

from proxy.oci.errors import DigestInvalid, NameInvalid, RegistryError, TagInvalid
from proxy.oci.names import DOCKER_HUB, Digest, Repository, Tag, parse_reference

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        "acme/app",
        "a.b/c_d",
        "a__b/c",
        "a--b/c",
        "a---b/c",
        "1/2",
        "a/b/c/d",
        "x/manifests/latest",
        "a/" + "b" * 253,
    ],
)
def test_names_of_the_grammar_are_taken_as_they_are(name: str) -> None:
    assert Repository.parse(name).name == name


@pytest.mark.parametrize(
    "name",
    [
        "", "/", "a/", "/a", "a//b", "A/b", "a/B", "../a", "a/..", "a/../b", ".a/b", "a./b", "a..b/c", "a___b/c",
        "-a/b", "a-/b", "a_-b/c", "a b/c", "a/b\n", "a\n/b", "a/b\0", "a%2fb/c", "a:b/c", "a/b@c", "ä/b",
        "a/" + "b" * 254, "a" * 300,
    ],
)  # fmt: skip
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(NameInvalid):
        Repository.parse(name)


def test_one_component_names_are_official_images_of_docker_hub_alone() -> None:
    assert Repository.parse("alpine") == Repository(DOCKER_HUB, "library/alpine")
    assert Repository.parse("library/alpine") == Repository.parse("alpine")
    assert Repository.parse("alpine", "ghcr.io") == Repository("ghcr.io", "alpine")


def test_a_repository_is_another_one_in_another_registry() -> None:
    assert Repository.parse("acme/app") != Repository.parse("acme/app", "ghcr.io")
    assert str(Repository.parse("acme/app", "ghcr.io")) == "ghcr.io/acme/app"


@pytest.mark.parametrize("tag", ["latest", "1.2.3", "_x", "V1", "a-b_c.d", "x" * 128, "sha256-" + HEX + ".sig"])
def test_tags_of_the_grammar_are_taken_as_they_are(tag: str) -> None:
    assert str(Tag.parse(tag)) == tag


@pytest.mark.parametrize("tag", ["", ".a", "-a", "a b", "a/b", "a\n", "a\0", "x" * 129, "ä", "a%0a", "..", "a+b"])
def test_other_tags_are_refused(tag: str) -> None:
    with pytest.raises(TagInvalid):
        Tag.parse(tag)


@pytest.mark.parametrize("digest", [f"sha256:{HEX}", f"sha512:{HEX}{HEX}"])
def test_digests_that_can_be_computed_are_taken(digest: str) -> None:
    assert str(Digest.parse(digest)) == digest


@pytest.mark.parametrize(
    "digest",
    [
        "", ":", "sha256:", HEX, f":{HEX}", f"sha256:{HEX[:-1]}", f"sha256:{HEX}0", f"sha256:{HEX.upper()}",
        f"SHA256:{HEX}", f"sha256:{HEX}\n", f"sha256:{HEX[:-1]}\n", f"sha256:{HEX[:-1]}g", f"md5:{HEX[:32]}",
        f"sha384:{HEX}{HEX[:32]}", f"sha512:{HEX}", f"sha256:sha256:{HEX}", f" sha256:{HEX}", f"sha256:{'٣' * 64}",
    ],
)  # fmt: skip
def test_other_digests_are_refused(digest: str) -> None:
    with pytest.raises(DigestInvalid):
        Digest.parse(digest)


@pytest.mark.parametrize(
    ("text", "error"), [("sha256:short", DigestInvalid), ("latest:x", DigestInvalid), ("-latest", TagInvalid)]
)
def test_a_reference_with_a_colon_is_a_digest_and_never_a_tag(text: str, error: type[RegistryError]) -> None:
    with pytest.raises(error):
        parse_reference(text)


def test_references_are_tags_or_digests() -> None:
    assert parse_reference("latest") == Tag("latest")
    assert parse_reference(f"sha256:{HEX}") == Digest("sha256", HEX)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_digest_matches_the_bytes_that_it_names_and_no_others(algorithm: str) -> None:
    digest = Digest.of(b"content", algorithm)

    assert digest.matches(b"content")
    assert not digest.matches(b"content ")
    assert digest.hasher().name == algorithm
