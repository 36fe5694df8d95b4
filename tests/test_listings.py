"""Lists of tags and of referrers (OCI distribution spec, "Content Discovery"; PROTOCOL 6)."""

from __future__ import annotations

import json
import re

import pytest

from proxy.oci.errors import QueryInvalid
from proxy.oci.listings import clean_query, next_query
from tests.cache_rig import CacheRig, Reply, gather
from tests.eventually import eventually
from tests.fake_hub import OCI_INDEX, OCI_MANIFEST, FakeHub
from tests.fake_hub.faults import at

APP = "acme/app"
SIGNATURE = "application/vnd.example.signature"


def tags_of(reply: Reply) -> list[str]:
    found: list[str] = json.loads(reply.body)["tags"]
    return found


def add_signature(hub: FakeHub, subject: str, kind: str = SIGNATURE) -> str:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": "sha256:" + "4" * 64, "size": 2},
        "layers": [],
        "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1},
    }
    return hub.add_manifest(APP, json.dumps(document).encode(), OCI_MANIFEST)


async def test_tags_are_listed_as_upstream_lists_them(cache: CacheRig, hub: FakeHub) -> None:
    for tag in ("1.0", "2.0", "latest"):
        hub.add_image(APP, tag)

    reply = await cache.send("GET", f"/v2/{APP}/tags/list")

    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    assert json.loads(reply.body) == {"name": APP, "tags": ["1.0", "2.0", "latest"]}
    assert hub.counted_pulls == 0


@pytest.mark.parametrize("path", ["/v2/acme/app", "/v2/docker.io/acme/app", "/docker.io/v2/acme/app"])
@pytest.mark.parametrize("namespace", [None, "docker.io"])
async def test_the_next_page_is_asked_for_as_the_first_was(
    cache: CacheRig, hub: FakeHub, path: str, namespace: str | None
) -> None:
    image = hub.add_image(APP, "v00")
    for number in range(1, 7):
        hub.tag(APP, f"v{number:02}", image.digest)
    suffix = f"&ns={namespace}" if namespace else ""

    seen, following = [], f"{path}/tags/list?n=3{suffix}"
    while following:
        reply = await cache.send("GET", following)
        seen += tags_of(reply)
        link = re.fullmatch(r'<([^>]*)>; rel="next"', reply.headers.get("Link", ""))
        following = link[1] if link else ""
        assert not following or (following.startswith(f"{path}/tags/list?") and following.endswith(suffix))

    assert seen == [f"v{number:02}" for number in range(7)]
    assert hub.count("GET", "tags") == 3
    assert not any("ns=" in request.query for request in hub.requests if request.kind == "tags")


async def test_an_absolute_link_of_upstream_leads_to_us(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    link = '<https://elsewhere.example/v2/x/tags/list?last=a%2Fb&n=1>; rel="next"'
    hub.change("tags", lambda answer: answer.headers.update({"link": link}))

    reply = await cache.send("GET", f"/v2/{APP}/tags/list?n=1")

    assert reply.headers["Link"] == f'</v2/{APP}/tags/list?last=a%2Fb&n=1>; rel="next"'


async def test_a_list_is_fresh_for_the_window_of_tags_and_then_asked_for_again(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "one")
    path = f"/v2/{APP}/tags/list"
    await cache.send("GET", path)
    hub.tag(APP, "two", image.digest)

    within = await cache.send("GET", path)
    cache.clock.advance(301)
    after = await cache.send("GET", path)

    assert (tags_of(within), within.cache_status) == (["one"], "pullthrough; hit")
    assert tags_of(after) == ["one", "two"]
    assert hub.count("GET", "tags") == 2


async def test_a_list_is_given_stale_while_upstream_is_gone(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "one")
    await cache.send("GET", f"/v2/{APP}/tags/list")
    cache.clock.advance(301)
    await hub.gone()

    reply = await cache.send("GET", f"/v2/{APP}/tags/list")
    unknown = await cache.send("GET", f"/v2/{APP}/tags/list?n=5")

    assert (reply.status, tags_of(reply), reply.headers["Age"]) == (200, ["one"], "301")
    assert reply.headers["Warning"].startswith('299 - "served stale')
    assert unknown.status == 503


async def test_concurrent_requests_for_one_list_are_one_question(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "one")
    gate = hub.hold("tags")

    requests = [cache.send("GET", f"/v2/{APP}/tags/list") for _ in range(10)]
    answers = gather(*requests, _release_when(cache, gate, 10))

    assert {reply.status for reply in (await answers)[:10]} == {200}
    assert hub.count("GET", "tags") == 1


async def _release_when(cache: CacheRig, gate: object, waiting: int) -> None:
    await eventually(lambda: cache.app.generation.routes._active == waiting)
    gate.release()  # type: ignore[attr-defined]


async def test_a_list_of_more_than_8_mib_is_refused(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "one")
    hub.garbage("tags", b"[" + b" " * (8 * 1024 * 1024) + b"]")

    assert (await cache.send("GET", f"/v2/{APP}/tags/list")).status == 503


async def test_private_lists_are_refused_like_all_else(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "one")
    hub.make_private(APP)

    reply = await cache.send("GET", f"/v2/{APP}/tags/list")

    assert (reply.status, hub.count("GET", "tags")) == (403, 0)


async def test_a_repository_that_is_not_there_has_no_list(hub: FakeHub, cache: CacheRig) -> None:
    hub.add_image(APP, "one")
    hub.fail(at("tags"), 404, body=b'{"errors":[{"code":"NAME_UNKNOWN","message":"no"}]}')

    first = await cache.send("GET", f"/v2/{APP}/tags/list")
    second = await cache.send("GET", f"/v2/{APP}/tags/list")

    assert (first.status, json.loads(first.body)["errors"][0]["code"]) == (404, "NAME_UNKNOWN")
    assert (second.status, hub.count("GET", "tags")) == (404, 1), "a 404 is remembered"


async def test_referrers_are_given_as_upstream_gives_them(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "one", oci=True)
    signature = add_signature(hub, image.digest)
    add_signature(hub, image.digest, "application/vnd.example.sbom")

    everything = await cache.send("GET", f"/v2/{APP}/referrers/{image.digest}")
    signatures = await cache.send("GET", f"/v2/{APP}/referrers/{image.digest}?artifactType={SIGNATURE}")

    assert (everything.status, everything.headers["Content-Type"]) == (200, OCI_INDEX)
    assert len(json.loads(everything.body)["manifests"]) == 2
    assert "OCI-Filters-Applied" not in everything.headers
    assert [each["digest"] for each in json.loads(signatures.body)["manifests"]] == [signature]
    assert signatures.headers["OCI-Filters-Applied"] == "artifactType"
    assert hub.counted_pulls == 0


async def test_a_registry_without_the_referrers_api_stays_one(cache: CacheRig, hub: FakeHub) -> None:
    """An empty list of ours would hide signatures that are found under a tag."""
    image = hub.add_image(APP, "one", oci=True)
    signature = add_signature(hub, image.digest)
    tag = image.digest.replace(":", "-")
    hub.tag(APP, tag, signature)
    hub.fail("referrers", 404, body=b"404 page not found")

    listed = await cache.send("GET", f"/v2/{APP}/referrers/{image.digest}")
    tagged = await cache.get_manifest(APP, tag, OCI_MANIFEST)

    assert listed.status == 404
    assert (tagged.status, tagged.headers["Docker-Content-Digest"]) == (200, signature)


async def test_warnings_of_upstream_are_passed_on(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "one")
    hub.change("tags", lambda answer: answer.headers.update({"warning": '299 - "this repository moves"'}))

    reply = await cache.send("GET", f"/v2/{APP}/tags/list")

    assert reply.headers["Warning"] == '299 - "this repository moves"'


@pytest.mark.parametrize(
    ("link", "query"),
    [
        ('</v2/a/tags/list?n=2&last=b>; rel="next"', "n=2&last=b"),
        ("</v2/a/tags/list?last=b>; rel=next", "last=b"),
        ('<https://other/x?last=b>; title="a, b"; rel="next"', "last=b"),
        ('</x?a=1>; rel="prev", </x?b=2>; rel="next"', "b=2"),
        ('</x?token=a%2Bb%3D&ns=evil>; REL="next"', "token=a%2Bb%3D"),
        ('</x?last=b#part>; rel="next"', "last=b"),
        ('</x?last=b>; rel="last"', None),
        ('</x>; rel="next"', None),
        ('</x?last=b>; rel="nextish"', None),
        ("garbage", None),
    ],
)
def test_the_next_page_of_a_link_header(link: str, query: str | None) -> None:
    assert next_query([link]) == query


@pytest.mark.parametrize(
    ("query", "clean"),
    [
        ("", ""),
        ("n=10&last=1.0", "n=10&last=1.0"),
        ("ns=docker.io&n=1", "n=1"),
        ("n=1&x=%0d%0aSet-Cookie:a", "n=1&x=%0D%0ASet-Cookie%3Aa"),
    ],
)
def test_a_query_is_written_anew(query: str, clean: str) -> None:
    assert clean_query(query) == clean


@pytest.mark.parametrize("query", ["last=%ff", "last=" + "a" * 3000, "&".join(f"k{n}=1" for n in range(30))])
def test_a_query_that_cannot_be_sent_on_is_refused(query: str) -> None:
    with pytest.raises(QueryInvalid):
        clean_query(query)
    with pytest.raises(QueryInvalid):
        next_query([f'</x?{query}>; rel="next"'])
