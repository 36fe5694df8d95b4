"""What upstream has no more and we hold is served on, counted once, and can be found (issue: it survives)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.oci.names import Repository, Tag
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub

APP = "acme/app"
REPOSITORY, LATEST = Repository.parse(APP), Tag.parse("latest")
WINDOW = 301.0

GONE: dict[str, tuple[Callable[[FakeHub], object], str]] = {
    "404": (lambda hub: hub.untag(APP, "latest"), "MANIFEST_UNKNOWN"),
    "403": (lambda hub: hub.fail("manifest", 403), "DENIED"),
}


async def counted(cache: CacheRig) -> float:
    return await cache.metric("pullthrough_vanished_total", upstream="docker.io") or 0


@pytest.mark.parametrize("way", GONE)
async def test_a_tag_that_vanished_is_served_counted_once_and_noted(cache: CacheRig, hub: FakeHub, way: str) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    vanish, reason = GONE[way]
    vanish(hub)

    for _ in range(3):
        cache.clock.advance(WINDOW)
        reply = await cache.get_manifest(APP, "latest")
        assert (reply.status, reply.body) == (200, image.body)

    assert await counted(cache) == 1
    found = cache.app.store.index.vanished(REPOSITORY, LATEST)
    assert found is not None
    assert found.reason == reason
    await cache.restart()
    assert cache.app.store.index.vanished(REPOSITORY, LATEST) == found


async def test_a_tag_that_is_back_has_not_vanished(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    hub.untag(APP, "latest")
    cache.clock.advance(WINDOW)
    await cache.get_manifest(APP, "latest")

    hub.add_manifest(APP, image.body, image.media_type, tag="latest")
    cache.clock.advance(WINDOW)
    await cache.get_manifest(APP, "latest")

    assert cache.app.store.index.vanished(REPOSITORY, LATEST) is None


async def test_a_tag_that_never_was_has_not_vanished(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")

    assert (await cache.get_manifest(APP, "never")).status == 404

    assert await counted(cache) == 0


async def test_an_outage_is_no_vanishing(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    hub.fail("registry", 500)
    cache.clock.advance(WINDOW)

    assert (await cache.get_manifest(APP, "latest")).status == 200

    assert await counted(cache) == 0
    assert cache.app.store.index.vanished(REPOSITORY, LATEST) is None


async def test_a_repository_that_is_public_no_more_is_noted_and_not_served(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")

    hub.remove_repository(APP)
    cache.clock.advance(6 * 3600 + 1)
    hub.expire_tokens()
    reply = await cache.get_manifest(APP, "latest")

    assert reply.status == 403
    found = cache.app.store.index.vanished(REPOSITORY, None)
    assert found is not None
    assert found.reason == "DENIED"
