"""Request targets: whatever bytes a client sends as one, it is a target of ours or an error that is the client's."""

from __future__ import annotations

from urllib.parse import quote, unquote

from hypothesis import given
from hypothesis import strategies as st

from proxy.oci.errors import RegistryError
from proxy.oci.names import DOCKER_HUB, DOCKER_HUB_ALIASES, parse_reference
from proxy.server.targets import (
    BaseTarget,
    BlobTarget,
    CatalogTarget,
    ListingTarget,
    ManifestTarget,
    SetupTarget,
    Target,
    Targets,
)
from tests.properties import examples
from tests.test_properties_names import digests, is_digest, is_name, is_tag, names, nearly, tags, tricky

REGISTRIES = (DOCKER_HUB, "ghcr.io", "registry.example:5000")

words = st.sampled_from(
    [
        *("/", "//", "v2", "/v2/", "manifests", "/manifests/", "blobs", "/blobs/", "tags/list", "/tags/list"),
        *("referrers", "/referrers/", "_catalog", "/setup", "library/app", "latest", "sha256:" + "0" * 64),
        *("?", "&", "=", "ns=", "n=10", "last=", "%", "%2f", "%2F", "%00", "%0d%0a", "%ff", "%252e", "..", "/./", "#"),
        *(DOCKER_HUB, "index.docker.io", "ghcr.io", "registry.example:5000", "evil.example", "http://evil.example/"),
    ]
)
raw_targets = st.lists(
    st.one_of(words, words, st.binary(max_size=3).map(lambda raw: raw.decode("utf-8", "surrogateescape")), tricky),
    max_size=9,
).map("".join)


def read(targets: Targets, raw: str) -> Target | RegistryError:
    """As the routes read it. Nothing but a RegistryError is ever raised, and none is a fault of ours."""
    try:
        return targets.parse(raw, targets.namespace(raw))
    except RegistryError as error:
        assert 400 <= error.status < 500
        assert error.body().isascii()
        return error


def assert_safe(target: Target) -> None:
    """What it names follows the grammar, and is of a registry that is configured."""
    match target:
        case ManifestTarget():
            assert is_name(target.repository.name) and target.repository.registry in REGISTRIES
            assert is_tag(str(target.reference)) or is_digest(str(target.reference))
        case BlobTarget():
            assert is_name(target.repository.name) and target.repository.registry in REGISTRIES
            assert is_digest(str(target.digest))
        case ListingTarget():
            assert is_name(target.repository.name) and target.repository.registry in REGISTRIES
            assert target.subject is None or is_digest(str(target.subject))
            assert target.query.isascii() and (target.query.isprintable() and " " not in target.query)
        case CatalogTarget():
            assert 1 <= target.count <= 1000
        case SetupTarget():
            assert target.client == "" or set(target.client) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        case BaseTarget():
            pass


@examples(550)
@given(raw_targets, st.booleans())
def test_any_target_is_one_of_ours_or_the_clients_error(raw: str, catalog: bool) -> None:
    targets = Targets(REGISTRIES, catalog=catalog)
    for _ in range(2):  # The second answer is from memory.
        found = read(targets, raw)
        if not isinstance(found, RegistryError):
            assert_safe(found)


@examples(160)
@given(
    st.one_of(names, nearly(names)),
    st.sampled_from(["manifests", "blobs", "referrers", "tags/list"]),
    st.one_of(tags, digests, nearly(digests), nearly(tags)),
    st.sampled_from(["", "?ns=docker.io", "?ns=ghcr.io", "?a=b&ns=registry.example%3A5000"]),
    st.sampled_from(["", "/ghcr.io", "/registry.example:5000", "/docker.io"]),
    st.sets(st.integers(0, 60)),
)
def test_what_is_asked_for_is_found_however_the_path_is_written(
    name: str, kind: str, reference: str, query: str, host: str, escaped: set[int]
) -> None:
    last = kind if kind == "tags/list" else f"{kind}/{reference}"
    path = f"/v2/{name}/{last}"
    if not set("?#%\ud800").isdisjoint(path):
        return
    written = "".join(quote(each, safe="") if number in escaped else each for number, each in enumerate(path))
    assert unquote(written) == path
    found = read(Targets(REGISTRIES), host + written + query)

    said = {each for each in (host.strip("/"), query.rpartition("ns=")[2].replace("%3A", ":")) if each}
    first = name.partition("/")[0]
    if host == "" and "/" in name and (first in (*REGISTRIES, *DOCKER_HUB_ALIASES) or "." in first or ":" in first):
        return  # A registry in the path: the examples of tests/test_targets.py.
    right = is_name(name) and len(said) <= 1 and "/v2/" not in path[4:]
    if kind == "manifests":
        right = right and (is_tag(reference) or is_digest(reference))
    elif kind != "tags/list":
        right = right and is_digest(reference)
    if right:
        assert isinstance(found, ManifestTarget | BlobTarget | ListingTarget)
        registry = said.pop() if said else DOCKER_HUB
        official = registry == DOCKER_HUB and "/" not in name
        assert str(found.repository) == f"{registry}/{'library/' if official else ''}{name}"
        if isinstance(found, ManifestTarget):
            assert found.reference == parse_reference(reference)
    elif not isinstance(found, RegistryError):
        assert_safe(found)


@examples(100)
@given(
    names,
    st.sampled_from(["manifests/x", "blobs/sha256:" + "0" * 64, "tags/list"]),
    st.sampled_from(["/", "/x", "x/y"]),
)
def test_what_follows_the_last_part_of_a_path_is_not_passed_over(name: str, last: str, more: str) -> None:
    assert isinstance(read(Targets(REGISTRIES), f"/v2/x/{name}/{last}"), ManifestTarget | BlobTarget | ListingTarget)
    assert isinstance(read(Targets(REGISTRIES), f"/v2/x/{name}/{last}{more}"), RegistryError)
