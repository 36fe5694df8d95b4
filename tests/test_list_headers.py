"""Lists and their headers where upstream or a client gets them wrong; lines as in `test_spec_discovery`."""

from __future__ import annotations

import json

import pytest

from tests.cache_rig import CacheRig
from tests.fake_hub import OCI_INDEX, FakeHub

APP = "acme/app"
TAGS = f"/v2/{APP}/tags/list"


async def test_warnings__L894_only_upstreams_well_formed_ones_are_passed_on(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    good = ['299 - "this image is deprecated"', r'299 - "with \"quotes\" and, a comma"']
    bad = [
        '199 - "another code"',
        '299 registry.example "an agent"',
        '299 - "dated" "Wed, 21 Oct 2015 07:28:00 GMT"',
        "299 - no quotes",
    ]
    hub.change("tags", lambda answer: answer.headers.extend([("warning", each) for each in good + bad]))

    assert (await cache.send("GET", TAGS)).headers.getall("Warning") == good


async def test_warnings__L896_no_more_than_4096_bytes_altogether(cache: CacheRig, hub: FakeHub) -> None:
    """However many upstream sends; and our own is among those that stay."""
    hub.add_image(APP, "latest")
    sent = [("warning", f'299 - "{number} {"x" * 500}"') for number in range(20)]
    hub.change("tags", lambda answer: answer.headers.extend(sent))

    fresh = (await cache.send("GET", TAGS)).headers.getall("Warning")
    cache.clock.advance(400)
    await hub.gone()
    stale = (await cache.send("GET", TAGS)).headers.getall("Warning")

    for warnings in (fresh, stale):
        assert 0 < sum(len(each) for each in warnings) <= 4096
    assert any("served stale" in each for each in stale)


async def test_warnings__L892_of_upstream_come_with_manifests_too(cache: CacheRig, hub: FakeHub) -> None:
    digest = hub.add_image(APP, "latest").digest
    warning = '299 - "this image is deprecated"'
    hub.change("manifest", lambda answer: answer.headers.update({"warning": warning}))

    for reference in ("latest", digest):
        for method in ("HEAD", "GET", "GET"):
            reply = await cache.send(method, f"/v2/{APP}/manifests/{reference}")
            assert reply.headers.getall("Warning") == [warning]


async def test_warnings_that_upstream_has_taken_back_are_gone(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    hub.change("manifest", lambda answer: answer.headers.update({"warning": '299 - "moving house"'}))
    await cache.get_manifest(APP, "latest")
    hub.heal()
    cache.clock.advance(301)

    assert "Warning" not in (await cache.get_manifest(APP, "latest")).headers


async def test_pulling_manifests__L166_the_content_type_keeps_its_case(cache: CacheRig, hub: FakeHub) -> None:
    """L167: clients SHOULD reject a manifest whose own `mediaType` is not the header's, and they compare strings."""
    media_type = "application/vnd.Acme.Thing.v1+json"
    hub.add_manifest(APP, json.dumps({"mediaType": media_type}).encode(), media_type, "latest")
    assert (await cache.send("GET", f"/v2/{APP}/manifests/latest")).headers["Content-Type"] == media_type


async def test_listing_tags__L581_a_link_that_is_too_long_is_not_the_end_of_the_list(
    cache: CacheRig, hub: FakeHub
) -> None:
    """Without the Link a client takes a part of the list for all of it."""
    hub.add_image(APP, "latest")
    link = f'<{TAGS}?n=1&last={"t" * 2100}>; rel="next"'
    hub.change("tags", lambda answer: answer.headers.update({"link": link}))
    reply = await cache.send("GET", f"{TAGS}?n=1")
    assert reply.status != 200 or "Link" in reply.headers


@pytest.mark.parametrize("last", ["c" * 2100, "%ff"])
async def test_listing_tags__L594_a_last_that_we_cannot_send_on_is_refused(
    cache: CacheRig, hub: FakeHub, last: str
) -> None:
    """Not answered with the first page of all tags, on which a client would walk in circles."""
    hub.add_image(APP, "a")
    assert (await cache.send("GET", f"{TAGS}?n=1&last={last}")).status == 400


async def test_listing_referrers__L619_the_content_type_is_an_index_whatever_upstream_says(
    cache: CacheRig, hub: FakeHub
) -> None:
    digest = hub.add_image(APP, "latest", oci=True).digest
    hub.change("referrers", lambda answer: answer.headers.update({"content-type": "application/json"}))
    reply = await cache.send("GET", f"/v2/{APP}/referrers/{digest}")
    assert (reply.status, reply.headers["Content-Type"]) == (200, OCI_INDEX)


async def test_listing_tags__L563_a_page_that_is_no_list_is_no_answer(cache: CacheRig, hub: FakeHub) -> None:
    """A login page with status 200 is kept for five minutes otherwise, and is no JSON."""
    hub.add_image(APP, "latest")
    hub.garbage("tags", b"<html>log in</html>")
    hub.change("tags", lambda answer: answer.headers.update({"content-type": "text/html"}))
    assert (await cache.send("GET", TAGS)).status == 503


async def test_listing_referrers__L671_filters_in_several_lines_all_count(cache: CacheRig, hub: FakeHub) -> None:
    digest = hub.add_image(APP, "latest", oci=True).digest
    lines = [("oci-filters-applied", "artifactType"), ("oci-filters-applied", "annotations")]
    hub.change("referrers", lambda answer: answer.headers.extend(lines))
    (applied,) = (await cache.send("GET", f"/v2/{APP}/referrers/{digest}")).headers.getall("OCI-Filters-Applied")
    assert applied.replace(" ", "") == "artifactType,annotations"


@pytest.mark.parametrize("query", ["n=-1", "n=abc"])
async def test_a_page_size_that_upstream_refuses_is_the_clients_error(
    cache: CacheRig, hub: FakeHub, query: str
) -> None:
    """distribution answers 400 PAGINATION_NUMBER_INVALID; 503 would make clients try again."""
    hub.add_image(APP, "latest")
    hub.fail("tags", 400, body=b'{"errors":[{"code":"PAGINATION_NUMBER_INVALID","message":"invalid number"}]}')
    assert (await cache.send("GET", f"{TAGS}?{query}")).status == 400
