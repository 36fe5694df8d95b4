"""The OCI distribution spec, requirement by requirement: "Content Discovery", for which upstream's word is law.

Lines as in test_spec_pull.py: `spec.md` at commit ed885fa765593c5294d3b55c0c78ee52825647f0. Lists are upstream's: what
binds the registry that makes them is shown to reach the client whole, from upstream (cold) and from us (warm).

Left out, since nobody but a client can keep it: L593 (what `last` may be), L601-603 (prefer Link), L703, L772-778 and
L782-784 (falling back to the tag schema, and naming its tag). L810-812 is about what was pushed before a registry had
the referrers API: upstream's to keep.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.cache_rig import CacheRig, Reply
from tests.fake_hub import OCI_INDEX, OCI_MANIFEST, FakeHub, at

APP = "acme/app"
TAGS = f"/v2/{APP}/tags/list"
TEN = [f"v{number:02}" for number in range(10)]
SBOM, SIGNATURE = "application/vnd.example.sbom.v1", "application/vnd.example.signature.v1"
NOTHING = "sha256:" + "0" * 64


@pytest.fixture
def subject(hub: FakeHub) -> str:
    """The digest of an image with ten tags, to which nothing refers."""
    digest = hub.add_image(APP, None, oci=True).digest
    for tag in TEN:
        hub.tag(APP, tag, digest)
    return digest


def add_referrer(hub: FakeHub, subject: str, media_type: str = OCI_MANIFEST, repository: str = APP, **more: Any) -> str:
    """Push something that refers to the subject; return its digest."""
    document = {"schemaVersion": 2, "mediaType": media_type, "subject": {"digest": subject}} | more
    return hub.add_manifest(repository, json.dumps(document).encode(), media_type)


async def cold_and_warm(cache: CacheRig, path: str) -> tuple[Reply, Reply]:
    """The same list from upstream, and from us."""
    cold, warm = await cache.send("GET", path), await cache.send("GET", path)
    assert (cold.cache_status, warm.cache_status) == ("pullthrough; fwd=miss", "pullthrough; hit")
    return cold, warm


def tags_of(reply: Reply) -> list[str]:
    found: list[str] = json.loads(reply.body)["tags"]
    return found


def descriptors_of(reply: Reply) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(reply.body)["manifests"]
    return found


def next_of(reply: Reply) -> str | None:
    """The target of the one link there is, which has to be well-formed (RFC 8288, section 3; once RFC 5988)."""
    lines = reply.headers.getall("Link", [])
    if not lines:
        return None
    (line,) = lines
    found = re.fullmatch(r'<(/[!-;=?-~]+)>; rel="next"', line)
    assert found is not None
    return found[1]


# Requirements


async def test_requirements__L133_all_of_content_discovery_is_served(cache: CacheRig, subject: str) -> None:
    """end-8a, end-8b, end-12a and end-12b (L839-845)."""
    referrers = f"/v2/{APP}/referrers/{subject}"
    for path in (TAGS, f"{TAGS}?n=3&last=v02", referrers, f"{referrers}?artifactType={SBOM}"):
        assert (await cache.send("GET", path)).status == 200, path


# Listing Tags


async def test_listing_tags__L559_200_if_the_repository_is_found(cache: CacheRig, subject: str) -> None:
    assert {reply.status for reply in await cold_and_warm(cache, TAGS)} == {200}


async def test_listing_tags__L560_the_list_may_be_empty(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP)
    assert [tags_of(reply) for reply in await cold_and_warm(cache, TAGS)] == [[], []]


async def test_listing_tags__L561_the_order_is_kept(cache: CacheRig, hub: FakeHub) -> None:
    """Whichever of the two orders that the spec allows is upstream's."""
    asciibetical, lexical = ["B", "_", "a", "c"], ["_", "a", "B", "c"]
    for name, order in (("ascii/betical", asciibetical), ("lexi/cal", lexical)):
        hub.add_image(name)
        body = json.dumps({"name": name, "tags": order}).encode()
        hub.garbage(at("tags", repository=name), body)
        for reply in await cold_and_warm(cache, f"/v2/{name}/tags/list"):
            assert tags_of(reply) == order


async def test_listing_tags__L563_the_body_is_json_with_name_and_tags(cache: CacheRig, subject: str) -> None:
    for reply in await cold_and_warm(cache, TAGS):
        assert reply.headers["Content-Type"] == "application/json"
        assert json.loads(reply.body) == {"name": APP, "tags": TEN}


@pytest.mark.parametrize("limit", [None, 4], ids=["n is given", "upstream gives less"])
async def test_listing_tags__L581_L582_n_tags_or_fewer_with_a_link(
    cache: CacheRig, hub: FakeHub, subject: str, limit: int | None
) -> None:
    """L581: fewer than `n` only if there are no more, or with a Link. L582: otherwise `n`."""
    hub.page_limit = limit
    for n in (1, 9, 10, 11):
        for reply in await cold_and_warm(cache, f"{TAGS}?n={n}"):
            expected = min(n, limit or n, len(TEN))
            assert tags_of(reply) == TEN[:expected]
            assert (next_of(reply) is not None) == (expected < len(TEN))


@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
async def test_listing_tags__L584_link_is_well_formed_and_leads_to_the_next_page(
    cache: CacheRig, hub: FakeHub, subject: str, absolute: bool
) -> None:
    """However upstream writes its own."""
    hub.absolute_links = absolute
    for reply in await cold_and_warm(cache, f"{TAGS}?n=4"):
        following = next_of(reply)
        assert following is not None
        assert tags_of(await cache.send("GET", following)) == TEN[4:8]


async def test_listing_tags__L585_n_zero_is_an_empty_list_without_a_link(cache: CacheRig, subject: str) -> None:
    for reply in await cold_and_warm(cache, f"{TAGS}?n=0"):
        assert (reply.status, tags_of(reply), next_of(reply)) == (200, [], None)


async def test_listing_tags__L586_L587_without_last_it_starts_at_the_beginning_in_order(
    cache: CacheRig, subject: str
) -> None:
    for reply in await cold_and_warm(cache, f"{TAGS}?n=3"):
        assert tags_of(reply) == TEN[:3]


async def test_listing_tags__L594_L595_L596_last_is_not_included_and_what_follows_is_in_order(
    cache: CacheRig, hub: FakeHub, subject: str
) -> None:
    """Also when no such tag exists."""
    for last in ("v02", "v02-none"):
        for reply in await cold_and_warm(cache, f"{TAGS}?n=3&last={last}"):
            assert tags_of(reply) == TEN[3:6]


async def test_listing_tags__L598_n_is_optional_with_last(cache: CacheRig, subject: str) -> None:
    for reply in await cold_and_warm(cache, f"{TAGS}?last=v06"):
        assert tags_of(reply) == TEN[7:]


# Listing Referrers


async def test_listing_referrers__L614_200_if_the_repository_is_found(
    cache: CacheRig, hub: FakeHub, subject: str
) -> None:
    add_referrer(hub, subject, artifactType=SBOM)
    assert {reply.status for reply in await cold_and_warm(cache, f"/v2/{APP}/referrers/{subject}")} == {200}


@pytest.mark.parametrize("absent", [NOTHING, "sha512:" + "0" * 128])
async def test_listing_referrers__L615_L625_an_empty_list_and_no_404_if_nothing_refers(
    cache: CacheRig, subject: str, absent: str
) -> None:
    """L625: no referrers, or none of the type. L615: nor a subject that exists."""
    for digest in (subject, f"{subject}?artifactType={SBOM}", absent):
        for reply in await cold_and_warm(cache, f"/v2/{APP}/referrers/{digest}"):
            assert (reply.status, descriptors_of(reply)) == (200, [])


async def test_listing_referrers__L616_400_for_a_digest_of_invalid_syntax(cache: CacheRig, hub: FakeHub) -> None:
    for digest in ("", "latest", "sha256:", "sha256:abc", "sha256:" + "g" * 64, NOTHING + "0", "sha256-" + "0" * 64):
        assert (await cache.send("GET", f"/v2/{APP}/referrers/{digest}")).status == 400, digest
    assert hub.requests == []


async def test_listing_referrers__L618_L619_the_body_is_an_image_index(
    cache: CacheRig, hub: FakeHub, subject: str
) -> None:
    """L618: JSON with a list of descriptors. L619: the Content-Type, also where upstream adds parameters to it."""
    add_referrer(hub, subject, artifactType=SBOM)
    hub.change("referrers", lambda answer: answer.headers.update({"content-type": f"{OCI_INDEX}; charset=utf-8"}))
    for reply in await cold_and_warm(cache, f"/v2/{APP}/referrers/{subject}"):
        document = json.loads(reply.body)
        assert (reply.headers["Content-Type"], document["mediaType"]) == (OCI_INDEX, OCI_INDEX)
        assert document["schemaVersion"] == 2
        assert set(document["manifests"][0]) >= {"mediaType", "digest", "size"}


async def test_listing_referrers__L620_only_what_refers_to_it_in_the_same_repository(
    cache: CacheRig, hub: FakeHub, subject: str
) -> None:
    other = hub.add_image(APP, "other", oci=True).digest
    hub.add_image("acme/copy", "latest", oci=True)
    mine = add_referrer(hub, subject, artifactType=SBOM)
    add_referrer(hub, other, artifactType=SBOM)
    elsewhere = add_referrer(hub, subject, repository="acme/copy", artifactType=SIGNATURE)

    for repository, digest in ((APP, mine), ("acme/copy", elsewhere)):
        for reply in await cold_and_warm(cache, f"/v2/{repository}/referrers/{subject}"):
            assert [each["digest"] for each in descriptors_of(reply)] == [digest]


async def test_listing_referrers__L621_to_L624_descriptors_have_type_and_annotations(
    cache: CacheRig, hub: FakeHub, subject: str
) -> None:
    """L621: artifactType; L622: else the config's type; L623: else, of an index, none; L624: annotations."""
    notes = {"org.example.sbom.format": "json", "org.opencontainers.image.created": "2022-01-01T14:42:55Z"}
    add_referrer(hub, subject, artifactType=SBOM, annotations=notes)
    add_referrer(hub, subject, config={"mediaType": SIGNATURE})
    add_referrer(hub, subject, OCI_INDEX, manifests=[])

    for reply in await cold_and_warm(cache, f"/v2/{APP}/referrers/{subject}"):
        first, second, third = descriptors_of(reply)
        assert (first["artifactType"], first["annotations"]) == (SBOM, notes)
        assert second["artifactType"] == SIGNATURE
        assert (third["mediaType"], "artifactType" in third) == (OCI_INDEX, False)


@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
async def test_listing_referrers__L664_L665_L666_pages_with_different_descriptors_are_linked(
    cache: CacheRig, hub: FakeHub, subject: str, absolute: bool
) -> None:
    """L664: a Link if one index cannot hold them. L665: others on each page. L666: the Link's form. With the filter."""
    added = [add_referrer(hub, subject, artifactType=SBOM, annotations={"n": str(number)}) for number in range(5)]
    add_referrer(hub, subject, artifactType=SIGNATURE)
    hub.page_limit, hub.absolute_links = 2, absolute

    for form in ("/v2/acme/app", "/v2/docker.io/acme/app", "/docker.io/v2/acme/app"):
        seen: list[str] = []
        following: str | None = f"{form}/referrers/{subject}?artifactType={SBOM}&ns=docker.io"
        while following is not None:
            assert following.startswith(f"{form}/referrers/{subject}?") and following.endswith("ns=docker.io")
            reply = await cache.send("GET", following)
            assert reply.headers["OCI-Filters-Applied"] == "artifactType"
            seen += [each["digest"] for each in descriptors_of(reply)]
            following = next_of(reply)
        assert seen == added
    assert hub.count("GET", "referrers") == 3


async def test_listing_referrers__L668_L670_a_filter_on_artifact_type_is_applied_and_said(
    cache: CacheRig, hub: FakeHub, subject: str
) -> None:
    """L668: the filter. L670: the header that says so, and only then."""
    sbom = add_referrer(hub, subject, artifactType=SBOM)
    add_referrer(hub, subject, artifactType=SIGNATURE)
    path = f"/v2/{APP}/referrers/{subject}"

    for reply in await cold_and_warm(cache, f"{path}?artifactType={SBOM}"):
        assert [each["digest"] for each in descriptors_of(reply)] == [sbom]
        assert reply.headers["OCI-Filters-Applied"] == "artifactType"
    for reply in await cold_and_warm(cache, path):
        assert len(descriptors_of(reply)) == 2
        assert "OCI-Filters-Applied" not in reply.headers


async def test_listing_referrers__L670_a_filter_that_upstream_does_not_apply_is_not_said_to_be(
    cache: CacheRig, hub: FakeHub, subject: str
) -> None:
    """Then the client has to filter for itself."""
    add_referrer(hub, subject, artifactType=SIGNATURE)
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{"digest": NOTHING}]}).encode()
    hub.garbage("referrers", body)
    hub.change("referrers", lambda answer: answer.headers.__delitem__("oci-filters-applied"))
    for reply in await cold_and_warm(cache, f"/v2/{APP}/referrers/{subject}?artifactType={SBOM}"):
        assert (reply.body, "OCI-Filters-Applied" in reply.headers) == (body, False)


async def test_listing_referrers__L671_several_filters_are_named_with_commas(
    cache: CacheRig, hub: FakeHub, subject: str
) -> None:
    hub.change("referrers", lambda answer: answer.headers.update({"oci-filters-applied": "artifactType,annotations"}))
    for reply in await cold_and_warm(cache, f"/v2/{APP}/referrers/{subject}?artifactType={SBOM}&annotations=a"):
        assert reply.headers.getall("OCI-Filters-Applied") == ["artifactType,annotations"]


async def test_listing_referrers__L701_L702_a_404_leads_clients_to_the_tag_schema(
    cache: CacheRig, hub: FakeHub, subject: str
) -> None:
    """L701: a registry without this API is told by 404, so ours has to be one. L702: what the tag names is an index."""
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
    hub.fail("referrers", 404, body=b"404 page not found")
    for digest in (subject, "sha512:" + "a" * 128):
        algorithm, _, encoded = digest.partition(":")
        tag = f"{algorithm}-{encoded[:64]}"
        hub.add_manifest(APP, body, OCI_INDEX, tag)
        for _ in range(2):
            assert (await cache.send("GET", f"/v2/{APP}/referrers/{digest}")).status == 404
            index = await cache.get_manifest(APP, tag, OCI_INDEX)
            assert (index.status, index.headers["Content-Type"], index.body) == (200, OCI_INDEX, body)
