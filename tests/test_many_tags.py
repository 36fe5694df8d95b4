"""Ten thousand tags through pagination: none lost, none twice, whatever the pages and however they are linked.

Upstream may name its next page by a path or by a whole URL, and may give smaller pages than it was asked for; the
client may have come through the root, `ns` or a path. It always gets links that lead back to us the way it came.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import pytest
from yarl import URL

from proxy.pull.listings import KEPT_BYTES, Listings
from tests.cache_rig import CacheRig, gather
from tests.fake_hub import FakeHub

APP = "acme/app"
COUNT = 10_000
FORMS = {
    "root": (f"/v2/{APP}/tags/list", ""),
    "ns": (f"/v2/{APP}/tags/list", "docker.io"),
    "path": (f"/v2/docker.io/{APP}/tags/list", ""),
    "path and ns": (f"/v2/docker.io/{APP}/tags/list", "docker.io"),
    "host before v2": (f"/docker.io/v2/{APP}/tags/list", ""),
}
PAGES = {
    "n smaller than upstream's page": (1000, 2500, 10),
    "n larger than upstream's page": (5000, 1250, 8),
    "no n": (None, 2000, 5),
    "n that leaves a rest": (1999, None, 6),
    "n larger than the list": (20_000, None, 1),
}
"""What is asked for, the most that upstream gives, and the pages that makes."""


@dataclass(frozen=True)
class Walk:
    """What a client saw that followed the links to their end."""

    tags: list[str]
    sizes: list[int]
    outcomes: list[str]


@pytest.fixture
def tags(hub: FakeHub) -> list[str]:
    """The tags of the repository, in the order in which they are listed; no two pages look alike."""
    digest = hub.add_image(APP, "latest").digest
    hub.untag(APP, "latest")
    names = sorted(
        f"{'VvR_'[number % 4]}{number * 7919 % 100_003:06}-{'rc.' * (number % 3)}x" for number in range(COUNT)
    )
    for name in names:
        hub.tag(APP, name, digest)
    assert len(set(names)) == COUNT
    return names


async def walk(cache: CacheRig, form: str, n: int | None = None) -> Walk:
    """Follow the links as a client does: resolved against the URL of the page that has them."""
    path, namespace = FORMS[form]
    query = ({"n": str(n)} if n is not None else {}) | ({"ns": namespace} if namespace else {})
    url: URL | None = URL(cache.url).with_path(path).with_query(query)
    seen = Walk([], [], [])
    while url is not None:
        reply = await cache.send("GET", url.raw_path_qs)
        assert reply.status == 200
        document = json.loads(reply.body)
        assert document["name"] == APP
        seen.tags.extend(document["tags"])
        seen.sizes.append(len(document["tags"]))
        seen.outcomes.append(reply.cache_status)
        link = re.fullmatch(r'<([^<>]+)>; rel="next"', reply.headers["Link"]) if "Link" in reply.headers else None
        following = url.join(URL(link[1], encoded=True)) if link else None
        if following is not None:
            assert (following.origin(), following.raw_path) == (url.origin(), path), "the way the client came"
            assert following.query.get("ns", "") == namespace
        url = following
    return seen


@pytest.mark.parametrize("absolute", [False, True], ids=["relative links", "absolute links"])
@pytest.mark.parametrize("pages", PAGES)
async def test_no_tag_is_lost_or_twice_and_each_page_is_asked_for_once(
    cache: CacheRig, hub: FakeHub, tags: list[str], pages: str, absolute: bool
) -> None:
    n, hub.page_limit, expected = PAGES[pages]
    hub.absolute_links = absolute
    largest = min(size for size in (n, hub.page_limit, COUNT) if size is not None)

    for form in FORMS:
        hub.reset_counts()
        cold, warm = await walk(cache, form, n), await walk(cache, form, n)

        assert cold.tags == warm.tags == tags, form
        assert "pullthrough; hit" not in cold.outcomes, form
        assert set(warm.outcomes) == {"pullthrough; hit"}, form
        assert len(cold.sizes) == hub.count("GET", "tags") == expected, form
        assert max(cold.sizes) == largest, form
        assert hub.counted_pulls == 0 and hub.violations == []
        assert not any("ns=" in request.query for request in hub.requests)
        cache.clock.advance(301)  # the window of tags: the next form finds nothing fresh


async def test_the_forms_share_their_pages(cache: CacheRig, hub: FakeHub, tags: list[str]) -> None:
    walks = [await walk(cache, form, 1000) for form in FORMS]

    assert all(seen.tags == tags for seen in walks)
    assert hub.count("GET", "tags") == 10


async def test_many_clients_walking_at_once_cost_one_walk(cache: CacheRig, hub: FakeHub, tags: list[str]) -> None:
    walks: list[Walk] = await gather(*(walk(cache, form, 1000) for form in FORMS for _ in range(4)))

    assert all(seen.tags == tags for seen in walks)
    assert hub.count("GET", "tags") == 10


async def test_last_goes_on_from_any_tag(cache: CacheRig, hub: FakeHub, tags: list[str]) -> None:
    middle = tags[6543]

    reply = await cache.send("GET", f"/v2/{APP}/tags/list?last={middle}&n=3000")

    assert json.loads(reply.body)["tags"] == tags[6544:9544]


async def test_the_pages_that_are_kept_stay_within_their_bound(cache: CacheRig, hub: FakeHub, tags: list[str]) -> None:
    """Twice the bound is listed: what was used longest ago is forgotten, and asked for again when it is wanted."""
    held = hub.repositories[APP].tags
    hub.repositories[APP].tags = {name.ljust(128, "."): digest for name, digest in held.items()}
    rounds = 2 * KEPT_BYTES // (128 * COUNT) + 1
    listings = kept_listings(cache)

    for number in range(rounds):
        assert len((await walk(cache, "root", 2000 + number)).tags) == COUNT
        assert listings._kept.weight <= KEPT_BYTES
    last = await walk(cache, "root", 2000 + rounds - 1)
    first = await walk(cache, "root", 2000)

    assert set(last.outcomes) == {"pullthrough; hit"}
    assert "pullthrough; hit" not in first.outcomes
    assert first.tags == last.tags
    assert listings._kept.weight <= KEPT_BYTES


def kept_listings(cache: CacheRig) -> Listings:
    """What holds the pages: how much they weigh no client can see."""
    return cache.app.generation.pull._listings
