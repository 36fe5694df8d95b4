"""Tags: fresh for a while, then confirmed with a free HEAD; stale, and said so, while upstream cannot confirm them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from multidict import CIMultiDict

from tests.asked import gets, gets_by_tag, heads, in_flight
from tests.cache_rig import CacheRig, gather
from tests.eventually import eventually
from tests.fake_hub import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Answer, FakeHub, Recorded, at

APP = "acme/app"
WINDOW = 300.0
HEAD = at("manifest", method="HEAD")
GET = at("manifest", method="GET")


async def test_a_fresh_tag_costs_nothing_upstream(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    first = await cache.get_manifest(APP, "latest")
    hub.reset_counts()
    cache.clock.advance(WINDOW - 1)

    got, head = await cache.get_manifest(APP, "latest"), await cache.head_manifest(APP, "latest")

    assert first.cache_status == "pullthrough; fwd=miss; stored"
    assert (got.body, got.cache_status, got.headers["Age"]) == (image.body, "pullthrough; hit", str(int(WINDOW - 1)))
    assert (head.headers["Docker-Content-Digest"], head.cache_status) == (image.digest, "pullthrough; hit")
    assert got.headers["Cache-Control"] == "no-cache"
    assert "Warning" not in got.headers
    assert hub.requests == []


async def test_after_the_window_an_unchanged_tag_costs_one_head_and_no_pull(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    hub.reset_counts()
    cache.clock.advance(WINDOW)

    replies = [await cache.get_manifest(APP, "latest") for _ in range(3)]

    assert {reply.body for reply in replies} == {image.body}
    assert [reply.cache_status for reply in replies[:2]] == ["pullthrough; hit; detail=revalidated", "pullthrough; hit"]
    assert (heads(hub), gets(hub)) == (1, 0)
    assert await cache.metric("pullthrough_revalidations_total", result="unchanged") == 1


async def test_a_moved_tag_costs_one_pull_of_the_new_digest(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    moved = hub.add_image(APP, "latest", [b"newer"])
    hub.reset_counts()
    cache.clock.advance(WINDOW)

    replies = [await cache.get_manifest(APP, "latest") for _ in range(3)]

    assert {reply.body for reply in replies} == {moved.body}
    assert {reply.headers["Docker-Content-Digest"] for reply in replies} == {moved.digest}
    assert (heads(hub), gets(hub, moved.digest), gets(hub)) == (1, 1, 1)


async def test_a_tag_that_moves_between_head_and_get_is_answered_as_the_head_said(
    cache: CacheRig, hub: FakeHub
) -> None:
    image = hub.add_image(APP, "latest")
    hub.hang(GET)

    async with asyncio.TaskGroup() as clients:
        pull = clients.create_task(cache.get_manifest(APP, "latest"))
        await hub.wait_held(GET)
        hub.add_image(APP, "latest", [b"newer"])
        hub.release()

    reply = pull.result()
    assert (reply.body, reply.headers["Docker-Content-Digest"]) == (image.body, image.digest)
    assert gets_by_tag(hub) == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_concurrent_requests_for_a_cold_tag_collapse(cache: CacheRig, hub: FakeHub, method: str) -> None:
    image = hub.add_image(APP, "latest")
    hub.add_image(APP, "known")
    await cache.head_manifest(APP, "known")  # That the repository is public is known now.
    hub.reset_counts()
    hub.hang("manifest")

    async with asyncio.TaskGroup() as clients:
        asked = [clients.create_task(cache.send(method, f"/v2/{APP}/manifests/latest")) for _ in range(50)]
        await eventually(lambda: in_flight(cache) == 50)
        await hub.wait_held()
        hub.release()

    assert {each.result().headers["Docker-Content-Digest"] for each in asked} == {image.digest}
    assert heads(hub) == 1
    assert gets(hub) == (1 if method == "GET" else 0)
    assert sum("collapsed" in each.result().cache_status for each in asked) >= 1


async def test_concurrent_requests_after_the_window_collapse(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    hub.reset_counts()
    await cache.restart()  # Nothing is in memory: every request has to look on disk before it asks.
    cache.clock.advance(WINDOW)

    replies = await gather(*(cache.get_manifest(APP, "latest") for _ in range(50)))

    assert {reply.body for reply in replies} == {image.body}
    assert (heads(hub), gets(hub)) == (1, 0)


async def test_heads_never_cost_a_pull(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")

    for _ in range(3):
        assert (await cache.head_manifest(APP, "latest")).headers["Content-Length"] == str(len(image.body))
        cache.clock.advance(WINDOW)
        image = hub.add_image(APP, "latest", [str(cache.clock.now).encode()])

    assert (hub.counted_pulls, gets(hub)) == (0, 0)
    assert cache.blobs_on_disk() == set()


async def test_a_clock_that_was_set_back_makes_a_tag_stale(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    moved = hub.add_image(APP, "latest", [b"newer"])
    cache.clock.advance(-365 * 24 * 3600)

    reply = await cache.get_manifest(APP, "latest")

    assert reply.body == moved.body


async def test_one_component_names_are_official_images(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image("library/alpine", "3.20")

    replies = [await cache.get_manifest(name, "3.20") for name in ("alpine", "library/alpine", "alpine")]

    assert {reply.body for reply in replies} == {image.body}
    assert {each.repository for each in hub.requests if each.kind == "manifest"} == {"library/alpine"}
    assert (heads(hub), gets(hub)) == (1, 1)


async def test_a_tag_that_is_missing_is_asked_for_once_in_30_seconds(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    await cache.head_manifest(APP, "latest")
    hub.reset_counts()

    missing = [await cache.send(method, f"/v2/{APP}/manifests/soon") for method in ("GET", "HEAD", "GET", "HEAD")]
    asked = len(hub.requests)
    image = hub.add_image(APP, "soon")
    cache.clock.advance(30)

    assert [reply.status for reply in missing] == [404] * 4
    assert json.loads(missing[0].body)["errors"][0]["code"] == "MANIFEST_UNKNOWN"
    assert asked == 1
    assert (await cache.get_manifest(APP, "soon")).body == image.body


async def test_a_tag_that_was_pushed_is_pulled_though_its_digest_was_missing_a_moment_ago(
    cache: CacheRig, hub: FakeHub
) -> None:
    elsewhere = hub.add_image("acme/builds", "latest", [b"soon"])
    hub.add_image(APP, "old")
    assert (await cache.get_manifest(APP, elsewhere.digest)).status == 404

    hub.add_manifest(APP, elsewhere.body, elsewhere.media_type, tag="latest")
    reply = await cache.get_manifest(APP, "latest")

    assert (reply.status, reply.body) == (200, elsewhere.body)


async def test_an_answer_that_says_nothing_of_the_tag_is_not_remembered(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    hub.add_image(APP, "known")
    await cache.head_manifest(APP, "known")
    hub.fail(HEAD, 500, times=2)  # Such a HEAD is sent twice.

    assert (await cache.get_manifest(APP, "latest")).status == 503
    assert (await cache.get_manifest(APP, "latest")).body == image.body


@pytest.mark.parametrize(
    "accept", [(), ("*/*",), (OCI_INDEX,), (DOCKER_MANIFEST, OCI_INDEX), (f"{DOCKER_LIST}, {OCI_INDEX};q=0.5",)]
)
async def test_every_client_that_takes_the_type_gets_the_one_answer(
    cache: CacheRig, hub: FakeHub, accept: tuple[str, ...]
) -> None:
    index = hub.add_index(APP, "multi", oci=True)
    await cache.get_manifest(APP, "multi", OCI_INDEX)
    hub.reset_counts()

    reply = await cache.get_manifest(APP, "multi", *accept)

    assert (reply.body, reply.headers["Content-Type"]) == (index.body, OCI_INDEX)
    assert hub.requests == []


async def test_a_client_that_does_not_take_the_type_gets_an_answer_of_its_own(cache: CacheRig, hub: FakeHub) -> None:
    index = hub.add_index(APP, "multi")
    single = index.images[0]

    def only_single_manifests(request: Recorded) -> bool:
        return HEAD(request) and request.reference == "multi" and request.headers["Accept"] == DOCKER_MANIFEST

    def converted(_: Recorded) -> Answer:
        headers = {"content-type": single.media_type, "docker-content-digest": single.digest}
        return Answer(200, CIMultiDict(headers))

    hub.replace(only_single_manifests, converted)

    for _ in range(2):
        wide = await cache.get_manifest(APP, "multi", DOCKER_LIST, DOCKER_MANIFEST)
        narrow = await cache.get_manifest(APP, "multi", DOCKER_MANIFEST)

        assert (wide.body, wide.headers["Content-Type"]) == (index.body, DOCKER_LIST)
        assert (narrow.body, narrow.headers["Content-Type"]) == (single.body, DOCKER_MANIFEST)
    assert gets(hub) == 2
    assert gets_by_tag(hub) == []


async def test_what_upstream_refuses_a_narrow_client_is_not_refused_to_others(cache: CacheRig, hub: FakeHub) -> None:
    index = hub.add_index(APP, "multi", oci=True)

    narrow = await cache.get_manifest(APP, "multi", OCI_MANIFEST)
    wide = await cache.get_manifest(APP, "multi", OCI_INDEX)

    assert narrow.status == 404
    assert (wide.status, wide.body) == (200, index.body)


async def test_a_digest_is_answered_in_its_type_whatever_is_accepted(cache: CacheRig, hub: FakeHub) -> None:
    index = hub.add_index(APP, "multi", oci=True)

    reply = await cache.get_manifest(APP, index.digest, DOCKER_MANIFEST)

    assert (reply.body, reply.headers["Content-Type"]) == (index.body, OCI_INDEX)


async def test_a_registry_that_does_not_tell_digests_is_asked_for_the_bytes(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    hub.no_digest_header("manifest")

    replies = [await cache.get_manifest(APP, "latest") for _ in range(2)]

    assert [(reply.body, reply.headers["Docker-Content-Digest"]) for reply in replies] == [
        (image.body, image.digest)
    ] * 2
    assert gets(hub) == 1


async def test_a_head_that_leaves_out_the_type_does_not_unlearn_it(cache: CacheRig, hub: FakeHub) -> None:
    body = b'{"schemaVersion": 2, "config": {}}'
    hub.add_manifest(APP, body, media_type=OCI_MANIFEST, tag="latest")
    hub.change(HEAD, lambda answer: answer.headers.update({"content-type": ""}))

    for _ in range(3):
        reply = await cache.get_manifest(APP, "latest")
        cache.clock.advance(WINDOW)

        assert (reply.body, reply.headers["Content-Type"]) == (body, OCI_MANIFEST)
    assert gets(hub) == 1


async def test_a_client_that_has_what_was_confirmed_is_told_so(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    cache.clock.advance(WINDOW)

    reply = await cache.get_manifest(APP, "latest", **{"If-None-Match": f'"{image.digest}"'})

    assert (reply.status, reply.body) == (304, b"")
    assert reply.cache_status == "pullthrough; hit; detail=revalidated"
    assert hub.counted_pulls == 1


async def test_freshness_outlives_a_restart(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    hub.reset_counts()
    cache.clock.advance(WINDOW / 2)

    await cache.restart()
    reply = await cache.get_manifest(APP, "latest")

    assert (reply.body, reply.cache_status) == (image.body, "pullthrough; hit")
    assert hub.requests == []


async def test_with_no_window_every_request_is_confirmed(hub: FakeHub, tmp_path: Path) -> None:
    hub.add_image(APP, "latest")
    async with CacheRig(hub.url, tmp_path / "cache", tags=0) as cache:
        for _ in range(3):
            await cache.get_manifest(APP, "latest")

    assert (heads(hub), gets(hub)) == (3, 1)
