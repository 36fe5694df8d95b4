"""What is read of a manifest: its type, and the descriptors it holds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.oci.manifests import (
    ACCEPT_ALL,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Manifest,
    accept_key,
    accepts,
    children,
    config_platform,
    declared_media_type,
    media_type_of,
    platforms,
)
from proxy.oci.names import Digest

ONE, TWO, THREE = (Digest.of(bytes([number])) for number in range(3))


def named(digest: Digest, size: object = 7, media_type: object = "application/x") -> dict[str, Any]:
    return {"digest": str(digest), "size": size, "mediaType": media_type}


@pytest.mark.parametrize(
    ("content_type", "media_type"),
    [
        (OCI_INDEX, OCI_INDEX),
        (f"{OCI_INDEX}; charset=utf-8", OCI_INDEX),
        (f"  {OCI_INDEX.upper()} ;q=0.5", OCI_INDEX.upper()),
        ("", ""),
    ],
)
def test_a_media_type_has_no_parameters_and_keeps_its_spelling(content_type: str, media_type: str) -> None:
    assert media_type_of(content_type) == media_type


@pytest.mark.parametrize(
    ("accept", "taken"),
    [
        ([], True),
        ([""], True),
        (["*/*"], True),
        (["application/*"], True),
        ([OCI_INDEX], True),
        ([f"{DOCKER_LIST}, {OCI_INDEX}"], True),
        ([DOCKER_LIST, OCI_INDEX], True),
        ([f"{OCI_INDEX};q=0.8"], True),
        ([OCI_INDEX.upper()], True),
        ([DOCKER_LIST], False),
        ([OCI_MANIFEST, DOCKER_MANIFEST], False),
        (["text/*"], False),
    ],
)
def test_a_client_takes_what_any_of_its_accept_lines_names(accept: list[str], taken: bool) -> None:
    assert accepts(accept, OCI_INDEX) is taken


def test_the_key_of_an_accept_is_the_same_for_every_order_and_spelling() -> None:
    key = accept_key([DOCKER_LIST, DOCKER_MANIFEST])

    assert accept_key([f"{DOCKER_MANIFEST};q=0.5 ,{DOCKER_LIST.upper()}"]) == key
    assert accept_key([DOCKER_LIST]) != key


@pytest.mark.parametrize("media_type", [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, "*/*"])
def test_upstream_is_asked_for_every_type_by_name(media_type: str) -> None:
    assert media_type in ACCEPT_ALL.split(", ")


@pytest.mark.parametrize(
    ("document", "digests"),
    [
        ({"config": named(ONE), "layers": [named(TWO), named(THREE)]}, {ONE, TWO, THREE}),
        ({"manifests": [named(ONE), named(TWO)]}, {ONE, TWO}),
        ({"blobs": [named(ONE)]}, {ONE}),
        ({}, set()),
        ([], set()),
        ({"layers": "no list", "config": [None, 5, "x"], "manifests": None}, set()),
        ({"layers": [{"digest": "sha256:../../etc"}, {"digest": 5}, {}, named(ONE)]}, {ONE}),
        ({"subject": named(ONE)}, set()),
    ],
)
def test_the_children_of_a_manifest_are_what_it_is_made_of(document: object, digests: set[Digest]) -> None:
    assert {child.digest for child in children(json.dumps(document).encode())} == digests


@pytest.mark.parametrize("body", [b"", b"not JSON", b"\xff\xfe", b"[" * 100_000, b"null", b'"text"'])
def test_what_is_no_document_has_no_children_and_no_type(body: bytes) -> None:
    assert children(body) == []
    assert declared_media_type(body) is None


@pytest.mark.parametrize(
    ("size", "known"), [(7, 7), (0, 0), (-1, None), ("7", None), (True, None), (None, None), (1.5, None)]
)
def test_a_size_that_is_none_is_not_known(size: object, known: int | None) -> None:
    (child,) = children(json.dumps({"config": named(ONE, size)}).encode())

    assert child.size == known


def test_no_more_descriptors_are_read_than_any_image_has() -> None:
    layers = [named(ONE)] * 20_000

    assert len(children(json.dumps({"layers": layers}).encode())) == 10_000


def test_a_manifest_declares_its_own_type_or_none() -> None:
    assert declared_media_type(json.dumps({"mediaType": OCI_INDEX}).encode()) == OCI_INDEX
    assert declared_media_type(b'{"mediaType": 5}') is None


def test_a_manifest_is_described_by_its_bytes() -> None:
    described = Manifest(ONE, OCI_INDEX, b"12345").descriptor

    assert (described.digest, described.media_type, described.size) == (ONE, OCI_INDEX, 5)


def test_an_index_says_what_its_manifests_are_for() -> None:
    attests = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    listed = [
        named(ONE) | {"platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
        named(TWO) | {"platform": {"os": "unknown", "architecture": "unknown"}} | attests,
        named(THREE),
    ]
    assert platforms(json.dumps({"manifests": listed}).encode()) == {ONE: "linux/arm64/v8", TWO: "attestation"}


@pytest.mark.parametrize("entry", [None, [], "x", {}, {"platform": 5}, {"platform": {"os": 5}}, {"annotations": []}])
def test_a_malformed_platform_is_none(entry: Any) -> None:
    listed = named(ONE) | entry if isinstance(entry, dict) else entry
    assert platforms(json.dumps({"manifests": [listed]}).encode()) == {}
    assert platforms(json.dumps({"manifests": listed}).encode()) == {}
    assert config_platform(json.dumps(entry).encode()) is None


def test_a_config_says_what_its_image_is_for() -> None:
    assert config_platform(b'{"os": "linux", "architecture": "amd64", "rootfs": {}}') == "linux/amd64"
    assert config_platform(b"no document") is None


@pytest.mark.parametrize(
    "text",
    [
        "text",
        "/",
        "a/",
        "/b",
        "a/b/c",
        "a b/c",
        "a/b\r\nX: y",
        "a/\ud800",
        "a/\u00e9",
        "a/b\x00",
        "a" * 128 + "/b",
        "a/(b)",
    ],
)
def test_what_is_no_media_type_is_none_wherever_it_stands(text: str) -> None:
    body = json.dumps({"mediaType": text, "config": named(ONE, media_type=text)}).encode()

    assert media_type_of(text) == ""
    assert declared_media_type(body) is None
    assert [child.media_type for child in children(body)] == [""]


def test_bytes_that_are_no_text_are_of_no_type_and_have_a_key_that_can_be_stored() -> None:
    accept = ["application/\udcff", "application/\u00e9;q=1"]

    assert not accepts(accept, OCI_INDEX)
    assert accept_key(accept) == "application/?"
