"""What upstream cannot confirm is answered stale, and said to be, as long as we hold it (RFC 9111 section 4.2.4)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import pytest

from proxy.policy.freshness import REVALIDATION_PATIENCE_SECONDS
from tests.asked import gets, heads
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub, at

APP = "acme/app"
WINDOW = 300.0
GET = at("manifest", method="GET")

FAILURES: dict[str, tuple[Callable[[FakeHub], object], str]] = {
    "500": (lambda hub: hub.fail("registry", 500), "cannot be reached"),
    "garbage": (lambda hub: hub.garbage("registry"), "cannot be reached"),
    "abuse limit": (lambda hub: hub.abuse_limit(), "rate limit is reached"),
    "401": (lambda hub: hub.remove_repository(APP), "refuses access"),
    "403": (lambda hub: hub.fail("manifest", 403), "refuses access"),
    "404": (lambda hub: hub.untag(APP, "latest"), "no longer has this"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_tag_that_upstream_does_not_confirm_is_answered_stale(
    cache: CacheRig, hub: FakeHub, failure: str, method: str
) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    fail, words = FAILURES[failure]
    cache.clock.advance(WINDOW + 60)
    hub.expire_tokens()
    fail(hub)

    stale = await cache.send(method, f"/v2/{APP}/manifests/latest")

    assert (stale.status, stale.headers["Docker-Content-Digest"]) == (200, image.digest)
    assert stale.body == (image.body if method == "GET" else b"")
    assert stale.headers["Warning"].startswith('299 - "served stale: ')
    assert words in stale.headers["Warning"]
    assert stale.headers["Age"] == str(int(WINDOW + 60))
    assert stale.cache_status.startswith("pullthrough; fwd=stale; detail=")
    assert await cache.metric("pullthrough_stale_total", kind="manifest") == 1
    assert cache.blobs_on_disk() == {image.digest}


async def test_a_tag_is_answered_stale_while_upstream_is_gone_and_confirmed_when_it_is_back(
    cache: CacheRig, hub: FakeHub
) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    cache.clock.advance(WINDOW)
    await hub.gone()

    stale = [await cache.get_manifest(APP, "latest") for _ in range(2)]
    await hub.back()
    confirmed = await cache.get_manifest(APP, "latest")

    assert [(reply.body, "Warning" in reply.headers) for reply in stale] == [(image.body, True)] * 2
    assert (confirmed.body, "Warning" in confirmed.headers) == (image.body, False)
    assert confirmed.cache_status == "pullthrough; hit; detail=revalidated"
    assert hub.counted_pulls == 1


async def test_a_slow_upstream_delays_a_client_that_can_be_answered_by_seconds_only(
    cache: CacheRig, hub: FakeHub
) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    hub.reset_counts()
    cache.clock.advance(WINDOW)
    hub.hang("any")
    started = time.monotonic()

    async with asyncio.TaskGroup() as clients:
        got = clients.create_task(cache.get_manifest(APP, "latest"))
        head = clients.create_task(cache.head_manifest(APP, "latest"))
    waited = time.monotonic() - started
    hub.heal()

    assert waited < REVALIDATION_PATIENCE_SECONDS + 1
    for reply in (got.result(), head.result()):
        assert reply.headers["Docker-Content-Digest"] == image.digest
        assert "slow to answer" in reply.headers["Warning"]

    async def confirmed() -> bool:
        return "Warning" not in (await cache.get_manifest(APP, "latest")).headers

    await eventually(confirmed)  # The question went on without them.
    assert (heads(hub), gets(hub)) == (1, 0)


async def test_a_moved_tag_whose_manifest_cannot_be_had_is_answered_with_the_one_before(
    cache: CacheRig, hub: FakeHub
) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    moved = hub.add_image(APP, "latest", [b"newer"])
    cache.clock.advance(WINDOW)
    hub.fail(GET, 500)

    stale = await cache.get_manifest(APP, "latest")
    hub.heal()
    fresh = await cache.get_manifest(APP, "latest")

    assert (stale.status, stale.body) == (200, image.body)
    assert stale.headers["Docker-Content-Digest"] == image.digest
    assert "Warning" in stale.headers
    assert (fresh.body, "Warning" in fresh.headers) == (moved.body, False)


async def test_a_moved_tag_whose_manifest_comes_slowly_is_answered_with_the_one_before(
    cache: CacheRig, hub: FakeHub
) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    moved = hub.add_image(APP, "latest", [b"newer"])
    cache.clock.advance(WINDOW)
    hub.hang(GET)
    started = time.monotonic()

    stale = await cache.get_manifest(APP, "latest")
    waited = time.monotonic() - started
    hub.release()

    assert (stale.body, waited < REVALIDATION_PATIENCE_SECONDS + 1) == (image.body, True)
    assert "slow to answer" in stale.headers["Warning"]
    await eventually(lambda: moved.digest in cache.blobs_on_disk())
    assert (await cache.get_manifest(APP, "latest")).body == moved.body
    assert gets(hub, moved.digest) == 1


async def test_a_tag_that_nobody_can_answer_is_an_error(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    await hub.gone()

    reply = await cache.get_manifest(APP, "other")

    assert reply.status == 503
    assert json.loads(reply.body)["errors"][0]["code"] == "UNAVAILABLE"
