"""A new configuration while clients pull: what it changes, what goes on as it began, and that no pull fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.app import StartError
from proxy.app.generation import Generation
from proxy.app.reloading import FIXED, carried_over
from proxy.config import SECTIONS, AccessOptions, Address, Config, FreshnessOptions, LogOptions, Secret, ServerOptions
from tests.asked import gets, heads, in_flight
from tests.blob_rig import MIB, REPOSITORY, add_layer, no_fills, partial_has
from tests.cache_rig import CacheRig, gather
from tests.eventually import eventually
from tests.fake_hub import FakeHub, at


async def reload(cache: CacheRig, **changes: Any) -> list[str]:
    """Have the rig's cache go on with these sections of its configuration; upstream options as `upstream`."""
    config = cache.app.config
    if "upstream" in changes:
        (first,) = config.upstreams
        changes["upstreams"] = (replace(first, **changes.pop("upstream")),)
    return await cache.app.reload(replace(config, **changes))


def is_open(cache: CacheRig, generation: Generation) -> bool:
    """Whether the upstream of a generation with one still has its connections."""
    (upstream,) = generation.upstreams.values()
    return upstream in cache.app._generations._shared.upstreams


@pytest.fixture
async def second_hub() -> AsyncIterator[FakeHub]:
    """Another upstream, with the same account."""
    async with FakeHub() as running:
        yield running


# What can be taken


def test_what_cannot_be_had_now_is_named_and_stays() -> None:
    running = Config()
    wanted = replace(
        running,
        server=ServerOptions(listen=Address("127.0.0.1", 1), setup=False),
        cache=replace(running.cache, directory=Path("/elsewhere"), memory=1),
        freshness=FreshnessOptions(tags=1.0),
    )
    taken, waiting = carried_over(running, wanted)
    assert waiting == ["server.listen", "cache.directory", "cache.memory"]
    assert taken == replace(running, server=replace(running.server, setup=False), freshness=FreshnessOptions(tags=1.0))
    assert carried_over(running, running) == (running, [])


def test_every_setting_that_waits_for_a_restart_exists() -> None:
    for section, keys in FIXED.items():
        assert set(keys) <= set(SECTIONS[section].__dataclass_fields__)


async def test_settings_of_the_new_configuration_are_used_from_then_on(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(REPOSITORY, "latest")
    await cache.get_manifest(REPOSITORY, "latest")
    cache.clock.advance(100)

    assert (await cache.get_manifest(REPOSITORY, "latest")).cache_status.startswith("pullthrough; hit")
    assert heads(hub, "latest") == 1
    assert await reload(cache, freshness=FreshnessOptions(tags=50.0)) == []
    await cache.get_manifest(REPOSITORY, "latest")
    assert heads(hub, "latest") == 2

    assert (await cache.send("GET", "/setup")).status == 200
    await reload(cache, server=replace(cache.app.config.server, setup=False))
    assert (await cache.send("GET", "/setup")).status == 404


async def test_who_may_pull_is_decided_by_the_new_configuration(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image("alice/secret", "latest")
    hub.make_private("alice/secret")
    assert (await cache.get_manifest("alice/secret", "latest")).status == 403
    await reload(cache, access=AccessOptions(private="serve"))
    assert (await cache.get_manifest("alice/secret", "latest")).status == 200
    await reload(cache, access=AccessOptions(private="deny"))
    assert (await cache.get_manifest("alice/secret", "latest")).status == 403


async def test_the_access_log_follows(cache: CacheRig) -> None:
    await reload(cache, log=LogOptions(access=False))
    await cache.send("GET", "/v2/")
    await reload(cache, log=LogOptions(format="text"))
    await cache.send("GET", "/v2/")
    await eventually(lambda: " GET ping - 200 " in cache.log.getvalue())
    assert len(cache.log.getvalue().splitlines()) == 1


async def test_a_listen_address_is_named_and_the_old_one_goes_on(cache: CacheRig) -> None:
    url = cache.url
    assert await reload(cache, server=ServerOptions(listen=Address("127.0.0.1", 1))) == ["server.listen"]
    assert (await cache.send("GET", "/v2/")).status == 200
    assert cache.url == url


async def test_what_an_upstream_refused_is_asked_again(hub: FakeHub, tmp_path: Path) -> None:
    add_layer(hub)
    async with CacheRig(hub.url, tmp_path / "cache", private="serve") as cache:
        assert (await cache.get_manifest(REPOSITORY, "latest")).status == 404
        hub.add_image(REPOSITORY, "latest")
        assert (await cache.get_manifest(REPOSITORY, "latest")).status == 404
        await reload(cache)
        assert (await cache.get_manifest(REPOSITORY, "latest")).status == 200


# Upstreams


async def test_an_upstream_that_stays_the_same_is_not_asked_who_we_are_again(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(REPOSITORY, "latest")
    await cache.get_manifest(REPOSITORY, "latest")
    asked, limits = hub.token_count(), (await cache.status())["upstreams"][0]["quota"]

    await reload(cache, freshness=FreshnessOptions(tags=0.0))
    await cache.get_manifest(REPOSITORY, "latest")

    assert hub.token_count() == asked
    assert (await cache.status())["upstreams"][0]["quota"]["remaining"] == limits["remaining"]


async def test_other_credentials_are_used_at_once(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(REPOSITORY, "latest")
    await reload(cache, upstream={"username": None, "password": None})
    await cache.get_manifest(REPOSITORY, "latest")
    assert (hub.counted_pulls_of("alice"), hub.counted_pulls) == (0, 1)


async def test_a_removed_upstream_is_unknown(cache: CacheRig, hub: FakeHub) -> None:
    (first,) = cache.app.config.upstreams
    hub.add_image(REPOSITORY, "latest")
    await reload(cache, upstreams=(first, replace(first, name="other.example")))
    assert (await cache.get_manifest(f"other.example/{REPOSITORY}", "latest")).status == 200

    await reload(cache, upstreams=(first,))

    reply = await cache.get_manifest(f"other.example/{REPOSITORY}", "latest")
    assert (reply.status, b"NAME_UNKNOWN" in reply.body) == (404, True)
    assert (await cache.get_manifest(REPOSITORY, "latest")).status == 200


async def test_a_configuration_that_cannot_be_used_changes_nothing(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(REPOSITORY, "latest")
    before = cache.app.config
    with pytest.raises(StartError, match="certificates"):
        await reload(cache, upstream={"ca": Path("/nowhere/ca.pem")}, freshness=FreshnessOptions(tags=1.0))
    assert cache.app.config is before
    assert (await cache.get_manifest(REPOSITORY, "latest")).status == 200


# What goes on as it began


async def test_a_running_fill_ends_as_it_began_and_then_its_upstream_is_closed(
    cache: CacheRig, hub: FakeHub, second_hub: FakeHub
) -> None:
    layer = add_layer(hub)
    add_layer(second_hub)
    old = cache.app.generation
    hub.hold(layer.digest, MIB // 2)
    running = asyncio.ensure_future(cache.get_blob(REPOSITORY, layer.digest))
    await partial_has(cache, layer.digest, MIB // 2)

    await reload(cache, upstream={"url": second_hub.url})
    joining = asyncio.ensure_future(cache.get_blob(REPOSITORY, layer.digest))
    await eventually(lambda: in_flight(cache) == 1)
    assert is_open(cache, old)
    hub.release()

    assert [reply.body for reply in await asyncio.gather(running, joining)] == [layer.content] * 2
    assert (hub.cdn_count(layer.digest), second_hub.cdn_count()) == (1, 0)
    await eventually(lambda: not is_open(cache, old))
    later = add_layer(second_hub, seed=2)
    assert (await cache.get_blob(REPOSITORY, later.digest)).body == later.content
    assert second_hub.cdn_count() == 1


async def test_a_fill_that_all_readers_have_left_goes_on_to_its_end(cache: CacheRig, hub: FakeHub) -> None:
    layer = add_layer(hub)
    hub.hold(layer.digest, MIB // 2)
    async with cache.open(layer.path):
        await partial_has(cache, layer.digest, MIB // 2)
    old = cache.app.generation
    await reload(cache, upstream={"idle_timeout": 4.0})
    await cache.send("GET", "/v2/")
    assert is_open(cache, old)
    hub.release()
    await no_fills(cache)
    await eventually(lambda: not is_open(cache, old))
    assert cache.blobs_on_disk() == {layer.digest}


async def test_a_manifest_that_is_being_fetched_is_not_fetched_again_for_the_new_configuration(
    cache: CacheRig, hub: FakeHub
) -> None:
    image = hub.add_image(REPOSITORY, "latest")
    hub.hold(at("manifest", method="GET"))
    first = asyncio.ensure_future(cache.get_manifest(REPOSITORY, "latest"))
    await eventually(lambda: gets(hub) == 1)
    await reload(cache, upstream={"idle_timeout": 4.0})
    second = asyncio.ensure_future(cache.get_manifest(REPOSITORY, "latest"))
    await eventually(lambda: in_flight(cache) == 1)
    hub.release()
    assert [reply.body for reply in await gather(first, second)] == [image.body] * 2
    assert hub.counted_pulls == 1


async def test_a_stop_does_not_wait_for_a_generation_that_has_work_left(cache: CacheRig, hub: FakeHub) -> None:
    layer = add_layer(hub)
    hub.hold(layer.digest, MIB // 2)
    async with cache.open(layer.path):
        await partial_has(cache, layer.digest, MIB // 2)
    old = cache.app.generation
    for seconds in (4.0, 3.0, 2.0):
        await reload(cache, upstream={"idle_timeout": seconds})
    await cache.stop()
    assert not is_open(cache, old)
    assert cache.partials_on_disk() == {layer.digest: MIB // 2}
    assert not [task for task in asyncio.all_tasks() if task.get_name() in ("retire", "keeper lock")]


async def test_counters_go_on(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(REPOSITORY, "latest")
    await cache.get_manifest(REPOSITORY, "latest")
    before = await cache.metric("pullthrough_requests_total")
    await reload(cache, upstream={"idle_timeout": 4.0})
    await cache.get_manifest(REPOSITORY, "latest")
    assert before is not None
    assert await cache.metric("pullthrough_requests_total") == before + 1
    assert await cache.metric("pullthrough_counted_pulls_total", upstream="docker.io") == 1


async def test_no_pull_fails_while_the_configuration_changes_again_and_again(cache: CacheRig, hub: FakeHub) -> None:
    """Every client pulls every image; half of the reloads close connections to upstream and open others."""
    hub.rate_limit = None
    images = []
    for number in range(12):
        layers = [hub.add_synthetic_blob(size, seed=number) for size in (MIB, 3000 + number)]
        images.append(hub.add_image(f"library/image-{number}", "latest", layers))
    done = asyncio.Event()

    async def pull_all(seed: int) -> None:
        for image in random.Random(seed).sample(images, len(images)):
            manifest = await cache.get_manifest(image.repository, "latest")
            assert (manifest.status, manifest.body) == (200, image.body)
            for digest in image.blobs:
                blob = await cache.get_blob(image.repository, digest)
                content = hub.content_of(digest)
                assert (blob.status, blob.body) == (200, content.read(0, len(blob.body)))
                assert len(blob.body) == content.size

    async def keep_reloading() -> int:
        count = 0
        while not done.is_set():
            count += 1
            await reload(cache, upstream={"idle_timeout": 5.0 + count // 2 % 2})
            await asyncio.sleep(0)
        return count

    reloading = asyncio.ensure_future(keep_reloading())
    async with asyncio.TaskGroup() as clients:
        for seed in range(16):
            clients.create_task(pull_all(seed))
    done.set()

    assert await reloading > 20
    assert gets(hub) == len(images)
    for image in images:
        assert [hub.cdn_count(digest) for digest in image.layers] == [1, 1]
    assert hub.violations == []
    await eventually(lambda: not [task for task in asyncio.all_tasks() if task.get_name() == "retire"])
    assert await cache.metric("pullthrough_fills_failed_total") in (None, 0)


# What is told of upstreams


async def test_nobody_is_alarmed_at_an_upstream_that_is_not_in_use_any_more(
    cache: CacheRig, second_hub: FakeHub
) -> None:
    second_hub.add_image(REPOSITORY, "latest")
    (hub,) = cache.app.config.upstreams
    wrong = replace(hub, name="ill.example", url=second_hub.url, password=Secret("revoked"))
    await cache.app.reload(replace(cache.app.config, upstreams=(hub, wrong)))
    await cache.send("GET", f"/v2/{REPOSITORY}/manifests/latest?ns=ill.example")
    assert await cache.metric("pullthrough_credentials_rejected", upstream="ill.example") == 1
    assert await cache.metric("pullthrough_upstream_breaker_open", upstream="ill.example") == 0

    await cache.app.reload(replace(cache.app.config, upstreams=(hub,)))

    for name in ("pullthrough_credentials_rejected", "pullthrough_upstream_breaker_open"):

        async def is_forgotten(name: str = name) -> bool:
            return await cache.metric(name, upstream="ill.example") is None

        await eventually(is_forgotten, label=name)
        assert await cache.metric(name, upstream="docker.io") == 0


async def test_an_account_that_was_taken_away_is_not_refused_any_more(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(REPOSITORY, "latest")
    hub.pat = "another"
    await cache.get_manifest(REPOSITORY, "latest")
    assert await cache.metric("pullthrough_credentials_rejected") == 1

    await reload(cache, upstream={"username": None, "password": None})

    assert await cache.metric("pullthrough_credentials_rejected") is None
