"""What an upstream has of its own, by the door: freshness, transfers; and what an outage must not change."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from tests.cache_rig import CacheRig, gather
from tests.eventually import eventually
from tests.fake_hub import FakeHub

APP = "acme/app"
SIGNATURE = "sha256-" + "0" * 64 + ".sig"


async def test_the_tags_of_one_upstream_are_fresh_for_a_time_of_their_own(hub: FakeHub, tmp_path: Path) -> None:
    hub.add_image(APP, "latest")
    rig = CacheRig(hub.url, tmp_path / "cache")
    usual = rig.config().upstreams[0]
    longer = replace(usual, name="slow.example", tags=3600.0)
    rig.options = {"upstreams": (usual, longer)}

    async with rig as cache:
        for name in ("docker.io", "slow.example"):
            await cache.get_manifest(f"{name}/{APP}", "latest")
        cache.clock.advance(1000)
        hub.reset_counts()
        usual_one = await cache.get_manifest(f"docker.io/{APP}", "latest")
        asked = hub.count("HEAD", "manifest")
        longer_one = await cache.get_manifest(f"slow.example/{APP}", "latest")

    assert (usual_one.cache_status, asked) == ("pullthrough; hit; detail=revalidated", 1)
    assert (longer_one.cache_status, hub.count("HEAD", "manifest")) == ("pullthrough; hit", 1)


async def test_no_more_blobs_are_fetched_at_a_time_than_the_upstream_may_have_transfers(
    hub: FakeHub, tmp_path: Path
) -> None:
    image = hub.add_image(APP, "latest", [bytes([number]) * 100_000 for number in range(4)])
    rig = CacheRig(hub.url, tmp_path / "cache")
    rig.options = {"upstreams": (replace(rig.config().upstreams[0], transfers=2),)}
    gate = hub.hold("cdn", after_bytes=1000)

    async with rig as cache:
        await cache.get_manifest(APP, "latest")
        pulls = asyncio.ensure_future(gather(*(cache.get_blob(APP, layer) for layer in image.layers)))
        await hub.wait_held("cdn", count=2)
        await eventually(lambda: len(cache.app.status()["fills"]) == 4)  # type: ignore[arg-type]
        at_a_time = len({request.reference for request in hub.requests if request.listener == "cdn"})
        gate.release()
        replies = await pulls

    assert at_a_time == 2
    assert [len(reply.body) for reply in replies] == [100_000] * 4


async def test_a_signature_that_was_not_there_is_still_not_there_while_upstream_is_gone(
    hub: FakeHub, cache: CacheRig
) -> None:
    """Clients that verify signatures look for one at every pull, and give up at anything but a 404."""
    image = hub.add_image(APP, "latest")
    hub.fail("referrers", 404, body=b"404 page not found")
    before = [await cache.get_manifest(APP, SIGNATURE), await cache.send("GET", f"/v2/{APP}/referrers/{image.digest}")]
    cache.clock.advance(3600)
    await hub.gone()

    after = [await cache.get_manifest(APP, SIGNATURE), await cache.send("GET", f"/v2/{APP}/referrers/{image.digest}")]

    assert [reply.status for reply in before] == [404, 404]
    assert [reply.status for reply in after] == [404, 404]
    assert (await cache.get_manifest(APP, "never-asked-for")).status == 503


async def test_a_signature_that_has_come_since_is_found(hub: FakeHub, cache: CacheRig) -> None:
    image = hub.add_image(APP, "latest")
    assert (await cache.get_manifest(APP, SIGNATURE)).status == 404
    hub.tag(APP, SIGNATURE, image.digest)
    cache.clock.advance(31)

    found = await cache.get_manifest(APP, SIGNATURE)
    cache.clock.advance(3600)
    await hub.gone()
    stale = await cache.get_manifest(APP, SIGNATURE)

    assert (found.status, stale.status, stale.body) == (200, 200, found.body)
