"""How far a fallback is believed, how long, and when the upstream itself is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.policy.freshness import FALLBACK_SECONDS
from proxy.upstream.fallback import REST_SECONDS
from tests.asked import heads
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub, at
from tests.fallback_rig import APP, both, error, little_patience, mark, mirrored

WINDOW = 300.0


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    little_patience(monkeypatch)


@pytest.fixture
async def mirror() -> AsyncIterator[FakeHub]:
    async with FakeHub(rate_limit=(500, 3600)) as running:
        yield running


@pytest.fixture
async def cache(hub: FakeHub, mirror: FakeHub, tmp_path: Path) -> AsyncIterator[CacheRig]:
    async with mirrored(hub, mirror, tmp_path / "cache") as running:
        yield running


async def test_a_fallbacks_word_on_a_tag_lasts_a_minute_and_then_upstream_is_asked_first(
    cache: CacheRig, hub: FakeHub, mirror: FakeHub
) -> None:
    both(hub, mirror)
    newer = hub.add_image(APP, "latest", [b"newer"])
    await hub.gone()
    await cache.get_manifest(APP, "latest")
    await hub.back()
    hub.reset_counts()
    mirror.reset_counts()

    await cache.restart()
    cache.clock.advance(FALLBACK_SECONDS - 1)
    within = await cache.head_manifest(APP, "latest")
    asked_within = heads(hub, "latest")
    cache.clock.advance(1)
    after = await cache.get_manifest(APP, "latest")
    cache.clock.advance(WINDOW - 1)
    later = await cache.head_manifest(APP, "latest")

    assert (within.status, mark(within), within.headers["Age"], mirror.requests) == (200, (True, True), "59", [])
    assert (asked_within, heads(hub, "latest")) == (0, 1)
    assert (after.body, mark(after)) == (newer.body, (False, False))
    assert (later.headers["Docker-Content-Digest"], mark(later)) == (newer.digest, (False, False))


async def test_a_fallbacks_newer_word_goes_before_what_is_held_and_without_it_that_is_given_stale(
    cache: CacheRig, hub: FakeHub, mirror: FakeHub
) -> None:
    old = both(hub, mirror, layer=b"old")
    await cache.get_manifest(APP, "latest")
    new = both(hub, mirror, layer=b"new")
    cache.clock.advance(WINDOW)
    await hub.gone()
    await mirror.gone()

    stale = await cache.get_manifest(APP, "latest")
    await mirror.back()
    marked = await cache.get_manifest(APP, "latest")

    assert (stale.body, stale.cache_status) == (old.body, "pullthrough; fwd=stale; detail=unavailable")
    assert (marked.body, mark(marked)) == (new.body, (True, True))


@pytest.mark.parametrize("mirrored", [True, False])
async def test_at_the_pull_limit_head_names_the_new_manifest_only_if_the_fallback_gave_it(
    cache: CacheRig, hub: FakeHub, mirror: FakeHub, mirrored: bool
) -> None:
    old = both(hub, mirror, layer=b"old")
    await cache.get_manifest(APP, "latest")
    new = both(hub, mirror, layer=b"new") if mirrored else hub.add_image(APP, "latest", [b"new"])
    cache.clock.advance(WINDOW)
    hub.set_remaining(0)

    head = await cache.head_manifest(APP, "latest")
    then = await cache.get_manifest(APP, head.headers["Docker-Content-Digest"])

    assert (then.status, then.body) == (200, new.body if mirrored else old.body)
    assert ("detail=limited" in head.cache_status) is not mirrored


async def test_an_upstream_that_is_slow_is_asked_last_for_a_while_and_then_first_again(
    cache: CacheRig, hub: FakeHub, mirror: FakeHub
) -> None:
    image = both(hub, mirror)
    await cache.get_manifest(APP, "latest")
    hub.hang("any")
    assert (await cache.head_blob(APP, image.config)).status == 200
    hub.reset_counts()

    resting = await cache.head_blob(APP, image.layers[0])
    asked_while_resting = list(hub.requests)
    hub.heal()
    cache.clock.advance(REST_SECONDS)
    mirror.reset_counts()
    other = hub.add_image(APP, "other", [b"other"])
    rested = await cache.head_blob(APP, other.layers[0])

    assert (resting.status, asked_while_resting) == (200, [])
    assert (rested.status, mirror.requests) == (200, [])


async def test_a_slow_upstream_gets_its_time_for_what_the_fallback_does_not_have(
    cache: CacheRig, hub: FakeHub, mirror: FakeHub
) -> None:
    both(hub, mirror)
    await cache.get_manifest(APP, "latest")
    only = hub.add_image(APP, "only", [b"only here"])
    gate = hub.hang(only.digest)

    asked = asyncio.create_task(cache.get_manifest(APP, only.digest))
    await refused_by(mirror, only.digest)
    gate.release()
    reply = await asked

    assert (reply.status, reply.body) == (200, only.body)


async def test_an_upstream_that_tells_no_digests_has_answered(cache: CacheRig, hub: FakeHub, mirror: FakeHub) -> None:
    image = both(hub, mirror)
    hub.no_digest_header(at("manifest"))

    reply = await cache.get_manifest(APP, "latest")

    assert (reply.body, mark(reply), mirror.requests) == (image.body, (False, False), [])


async def test_a_manifest_by_tag_has_no_digest_to_be_verified_by_and_comes_from_upstream_only(
    cache: CacheRig, hub: FakeHub, mirror: FakeHub
) -> None:
    both(hub, mirror)
    hub.no_digest_header(at("manifest"))
    hub.fail(at("manifest", method="GET"), 502)

    reply = await cache.get_manifest(APP, "latest")

    assert (error(reply), mirror.requests) == ((503, "UNAVAILABLE"), [])


async def test_what_upstream_called_private_stays_private_whatever_a_fallback_says(
    cache: CacheRig, hub: FakeHub, mirror: FakeHub
) -> None:
    both(hub, mirror)
    hub.make_private(APP)
    assert error(await cache.get_manifest(APP, "latest")) == (403, "DENIED")
    await hub.gone()

    soon = await cache.get_manifest(APP, "latest")
    cache.clock.advance(7 * 3600)
    later = await cache.get_manifest(APP, "latest")

    assert (error(soon), error(later)) == ((403, "DENIED"), (403, "DENIED"))
    assert cache.blobs_on_disk() == set()


async def test_that_a_repository_is_public_at_a_fallback_is_believed_for_a_minute_only(
    cache: CacheRig, hub: FakeHub, mirror: FakeHub
) -> None:
    image = both(hub, mirror)
    hub.make_private(APP)
    await hub.gone()
    assert (await cache.get_manifest(APP, "latest")).status == 200
    mirror.reset_counts()

    again = await cache.get_manifest(APP, image.digest)
    asked = list(mirror.requests)
    await hub.back()
    cache.clock.advance(FALLBACK_SECONDS)
    after = await cache.get_manifest(APP, image.digest)

    assert (again.status, asked) == (200, [])
    assert error(after) == (403, "DENIED")


async def refused_by(mirror: FakeHub, digest: str) -> None:
    """Until the mirror has said that it does not have this."""
    await eventually(lambda: mirror.count("GET", "manifest", digest, status=404) == 1)
