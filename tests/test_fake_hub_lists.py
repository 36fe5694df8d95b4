"""The fake hub's lists: pages, and how their Link headers are written."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.fake_hub import OCI_INDEX, OCI_MANIFEST, FakeHub, HubClient, Reply

APP = "acme/app"


@pytest.fixture
async def client(hub: FakeHub) -> AsyncIterator[HubClient]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield HubClient(hub, session, APP)


def link_of(reply: Reply) -> str:
    found = re.fullmatch(r'<(.+)>; rel="next"', reply.headers["Link"])
    assert found is not None
    return found[1]


async def test_the_hubs_page_limit_holds_below_what_was_asked_for(hub: FakeHub, client: HubClient) -> None:
    for tag in "abcde":
        hub.add_image(APP, tag)
    hub.page_limit = 2

    asked_more, asked_less = await client.ask("tags/list?n=4"), await client.ask("tags/list?n=1")
    asked_nothing = await client.ask("tags/list?last=b")

    assert (asked_more.json()["tags"], link_of(asked_more)) == (["a", "b"], f"/v2/{APP}/tags/list?n=2&last=b")
    assert (asked_less.json()["tags"], link_of(asked_less)) == (["a"], f"/v2/{APP}/tags/list?n=1&last=a")
    assert asked_nothing.json()["tags"] == ["c", "d"]


async def test_the_next_page_may_be_named_by_a_whole_url(hub: FakeHub, client: HubClient) -> None:
    hub.add_image(APP, "a")
    hub.add_image(APP, "b")
    hub.absolute_links = True

    reply = await client.ask("tags/list?n=1")

    assert link_of(reply) == f"{hub.url}/v2/{APP}/tags/list?n=1&last=a"


async def test_referrers_come_in_pages_too(hub: FakeHub, client: HubClient) -> None:
    subject = hub.add_image(APP, "one", oci=True)
    added = [_add_referrer(hub, subject.digest, {"artifactType": f"a/{number}"}) for number in range(3)]
    hub.page_limit = 2

    first = await client.ask(f"referrers/{subject.digest}")
    second = await client.ask(link_of(first).removeprefix(f"/v2/{APP}/"))

    assert [each["digest"] for reply in (first, second) for each in reply.json()["manifests"]] == added
    assert "Link" not in second.headers


async def test_a_referrer_has_the_annotations_and_the_type_of_its_manifest(hub: FakeHub, client: HubClient) -> None:
    subject = hub.add_image(APP, "one", oci=True)
    _add_referrer(hub, subject.digest, {"annotations": {"org.example.by": "alice"}})
    _add_referrer(hub, subject.digest, {"config": {"mediaType": "a/config"}})
    _add_referrer(hub, subject.digest, {"manifests": []}, OCI_INDEX)

    listed = (await client.ask(f"referrers/{subject.digest}")).json()["manifests"]

    assert [each.get("artifactType") for each in listed] == [None, "a/config", None]
    assert [each.get("annotations") for each in listed] == [{"org.example.by": "alice"}, None, None]


def _add_referrer(hub: FakeHub, subject: str, fields: dict[str, object], media_type: str = OCI_MANIFEST) -> str:
    document = {"mediaType": media_type, "subject": {"digest": subject}} | fields
    return hub.add_manifest(APP, json.dumps(document).encode(), media_type)
