"""One manifest for many: concurrent requests share a fetch, repositories share the bytes but not the right to them."""

from __future__ import annotations

import asyncio

from tests.asked import gets, heads, in_flight
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub, at

APP = "acme/app"
OTHER = "acme/other"
GET = at("manifest", method="GET")


async def test_concurrent_gets_of_one_digest_collapse_into_one_fetch(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    hub.hang(GET)

    async with asyncio.TaskGroup() as clients:
        pulls = [clients.create_task(cache.get_manifest(APP, image.digest)) for _ in range(50)]
        await eventually(lambda: in_flight(cache) == 50)
        await hub.wait_held()
        hub.release()

    assert {(pull.result().status, pull.result().body) for pull in pulls} == {(200, image.body)}
    assert gets(hub) == hub.counted_pulls == 1


async def test_concurrent_heads_of_one_digest_collapse_into_one_question(cache: CacheRig, hub: FakeHub) -> None:
    image, other = hub.add_image(APP, "latest"), hub.add_image(APP, "other")
    await cache.head_manifest(APP, other.digest)  # The repository is known to be public now.
    hub.hang(at("manifest", method="HEAD", reference=image.digest))

    async with asyncio.TaskGroup() as clients:
        asked = [clients.create_task(cache.head_manifest(APP, image.digest)) for _ in range(50)]
        await hub.wait_held()
        await eventually(lambda: in_flight(cache) == 50)
        hub.release()

    assert {ask.result().status for ask in asked} == {200}
    assert heads(hub, image.digest) == 1
    assert gets(hub) == 0


async def test_a_client_that_leaves_does_not_end_the_fetch(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    hub.hang(GET)
    client = asyncio.create_task(cache.get_manifest(APP, image.digest))
    await hub.wait_held(GET)

    client.cancel()
    await asyncio.wait([client])
    await eventually(lambda: in_flight(cache) == 0)
    hub.release()

    await eventually(lambda: cache.blobs_on_disk() == {image.digest})
    assert (await cache.get_manifest(APP, image.digest)).cache_status == "pullthrough; hit"
    assert gets(hub) == 1


async def test_one_digest_through_two_repositories_is_fetched_once_and_proven_for_each(
    cache: CacheRig, hub: FakeHub
) -> None:
    image = hub.add_image(APP, "latest")
    hub.add_manifest(OTHER, image.body, tag="latest")
    hub.hang(GET)

    async with asyncio.TaskGroup() as clients:
        first = clients.create_task(cache.get_manifest(APP, image.digest))
        await hub.wait_held(GET)
        second = clients.create_task(cache.get_manifest(OTHER, image.digest))
        await eventually(lambda: hub.count("HEAD", "manifest", repository=OTHER))
        hub.release()

    assert first.result().body == second.result().body == image.body
    assert hub.counted_pulls == 1
    assert heads(hub, image.digest, repository=OTHER) == 1
    hub.reset_counts()
    assert (await cache.get_manifest(OTHER, image.digest)).cache_status == "pullthrough; hit"
    assert hub.requests == []


async def test_a_repository_that_lacks_a_digest_does_not_get_what_another_is_fetching(
    cache: CacheRig, hub: FakeHub
) -> None:
    image = hub.add_image(APP, "latest")
    hub.add_image(OTHER, "latest", [b"something else"])
    await cache.head_manifest(APP, "latest")
    await cache.head_manifest(OTHER, "latest")
    hub.hang(GET)

    async with asyncio.TaskGroup() as clients:
        allowed = [clients.create_task(cache.get_manifest(APP, image.digest)) for _ in range(5)]
        without = [clients.create_task(cache.get_manifest(OTHER, image.digest)) for _ in range(5)]
        await hub.wait_held()
        hub.release()

    assert {each.result().status for each in allowed} == {200}
    assert {each.result().status for each in without} == {404}
    assert (await cache.get_manifest(OTHER, image.digest)).status == 404
    assert (await cache.head_manifest(OTHER, image.digest)).status == 404
    assert hub.counted_pulls == 1


async def test_a_refusal_of_one_repository_is_no_answer_for_another(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    hub.add_image(OTHER, "latest", [b"something else"])
    await cache.head_manifest(APP, "latest")
    await cache.head_manifest(OTHER, "latest")
    missing = at("manifest", method="GET", repository=OTHER)
    hub.hang(missing)

    async with asyncio.TaskGroup() as clients:
        without = [clients.create_task(cache.get_manifest(OTHER, image.digest)) for _ in range(5)]
        await hub.wait_held(missing)
        allowed = [clients.create_task(cache.get_manifest(APP, image.digest)) for _ in range(5)]
        await eventually(lambda: in_flight(cache) == 10)
        hub.release()

    assert {each.result().status for each in without} == {404}
    assert {each.result().status for each in allowed} == {200}
    assert hub.counted_pulls == 1


async def test_what_is_stored_costs_another_repository_a_free_question(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    hub.add_manifest(OTHER, image.body, tag="copy")
    await cache.get_manifest(APP, image.digest)

    replies = [await cache.get_manifest(OTHER, image.digest) for _ in range(2)]

    assert [(reply.body, reply.cache_status) for reply in replies] == [(image.body, "pullthrough; hit")] * 2
    assert hub.counted_pulls == 1
    assert heads(hub, image.digest, repository=OTHER) == 1
