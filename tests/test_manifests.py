"""Manifests by digest: exact, verified, fetched once, and given only under repositories that have them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pytest

from proxy.oci.manifests import MAX_MANIFEST_BYTES
from tests.asked import gets, gets_by_tag, heads
from tests.cache_rig import CacheRig, Reply, gather
from tests.fake_hub import DOCKER_MANIFEST, OCI_INDEX, FakeHub, at

APP = "acme/app"
GET = at("manifest", method="GET")

FAULTS: dict[str, Callable[[FakeHub], object]] = {
    "status": lambda hub: hub.fail(GET, 500),
    "cut": lambda hub: hub.cut(GET, 10, times=None),
    "garbage": lambda hub: hub.garbage(GET),
    "truncate": lambda hub: hub.truncate(GET, 10, honest_length=True),
}


def error_code(reply: Reply) -> str:
    code: str = json.loads(reply.body)["errors"][0]["code"]
    return code


async def test_a_manifest_is_fetched_once_and_answered_as_it_came(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")

    miss = await cache.get_manifest(APP, image.digest)
    hit = await cache.get_manifest(APP, image.digest)

    for reply in (miss, hit):
        assert (reply.status, reply.body) == (200, image.body)
        assert reply.headers["Content-Type"] == image.media_type
        assert reply.headers["Content-Length"] == str(len(image.body))
        assert reply.headers["Docker-Content-Digest"] == image.digest
        assert reply.headers["ETag"] == f'"{image.digest}"'
        assert reply.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
        assert "max-age=31536000" in reply.headers["Cache-Control"]
        assert not {"Content-Encoding", "Transfer-Encoding", "WWW-Authenticate"} & set(reply.headers)
    assert miss.cache_status == "pullthrough; fwd=miss; stored"
    assert hit.cache_status == "pullthrough; hit"
    assert hub.counted_pulls == gets(hub) == 1
    assert await cache.metric("pullthrough_counted_pulls_total") == 1
    assert cache.blobs_on_disk() == {image.digest}
    assert hub.violations == []


async def test_bytes_and_an_unknown_type_are_kept_exactly(cache: CacheRig, hub: FakeHub) -> None:
    body = b'\n{ "schemaVersion" :2,\r\n\t"mediaType":"application/vnd.acme.thing+json"  ,"a":1.0, "a":2 }\n\n '
    digest = hub.add_manifest(APP, body, media_type="application/vnd.acme.thing+json", tag="thing")

    for reference in ("thing", digest, "thing", digest):
        reply = await cache.get_manifest(APP, reference)

        assert reply.body == body
        assert reply.headers["Content-Type"] == "application/vnd.acme.thing+json"


async def test_what_is_no_json_at_all_is_kept_exactly_too(cache: CacheRig, hub: FakeHub) -> None:
    digest = hub.add_manifest(APP, b"\xff\xfe\x00 not JSON", media_type="application/x-odd", tag="odd")

    assert (await cache.get_manifest(APP, digest)).body == b"\xff\xfe\x00 not JSON"


async def test_parameters_of_a_content_type_are_not_passed_on(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    hub.change("manifest", lambda answer: answer.headers.update({"content-type": f"{image.media_type}; charset=utf-8"}))

    for _ in range(2):
        assert (await cache.get_manifest(APP, "latest")).headers["Content-Type"] == image.media_type
        assert (await cache.head_manifest(APP, image.digest)).headers["Content-Type"] == image.media_type


@pytest.mark.parametrize("by_tag", [True, False])
async def test_bytes_of_another_digest_are_neither_answered_nor_stored(
    cache: CacheRig, hub: FakeHub, by_tag: bool
) -> None:
    image = hub.add_image(APP, "latest")
    reference = "latest" if by_tag else image.digest
    hub.corrupt("manifest", 20)

    refused = await cache.get_manifest(APP, reference)

    assert (refused.status, error_code(refused)) == (503, "UNAVAILABLE")
    assert cache.blobs_on_disk() == set()
    assert cache.partials_on_disk() == {}
    hub.heal()
    assert (await cache.get_manifest(APP, reference)).body == image.body


async def test_a_manifest_of_8_mib_is_served_and_a_larger_one_refused(cache: CacheRig, hub: FakeHub) -> None:
    whole = hub.add_manifest(APP, b" " * (MAX_MANIFEST_BYTES - 2) + b"{}")
    larger = hub.add_manifest(APP, b" " * (MAX_MANIFEST_BYTES - 1) + b"{}")

    served = [await cache.get_manifest(APP, whole) for _ in range(2)]
    refused = await cache.get_manifest(APP, larger)

    assert [(reply.status, len(reply.body)) for reply in served] == [(200, MAX_MANIFEST_BYTES)] * 2
    assert (refused.status, error_code(refused)) == (503, "UNAVAILABLE")
    assert gets(hub, whole) == 1
    assert cache.blobs_on_disk() == {whole}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fetch_that_failed_leaves_nothing_and_the_next_one_succeeds(
    cache: CacheRig, hub: FakeHub, fault: str
) -> None:
    image = hub.add_image(APP, "latest")
    FAULTS[fault](hub)

    refused = await cache.get_manifest(APP, "latest")

    assert (refused.status, error_code(refused)) == (503, "UNAVAILABLE")
    assert cache.blobs_on_disk() == set()
    assert cache.partials_on_disk() == {}
    hub.heal()
    assert (await cache.get_manifest(APP, "latest")).body == image.body


async def test_head_tells_all_that_get_does_and_costs_no_pull(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")

    heads_answered = [await cache.head_manifest(APP, reference) for reference in (image.digest, "latest")]
    got = await cache.get_manifest(APP, image.digest)

    for reply in heads_answered:
        assert (reply.status, reply.body) == (200, b"")
        for name in ("Content-Type", "Content-Length", "Docker-Content-Digest", "ETag"):
            assert reply.headers[name] == got.headers[name]
    assert hub.counted_pulls == 1


@pytest.mark.parametrize("spelling", ['"{}"', "{}", 'W/"{}"', '"sha256:0", "{}"', "*"])
async def test_a_client_that_has_it_already_is_told_so(cache: CacheRig, hub: FakeHub, spelling: str) -> None:
    image = hub.add_image(APP, "latest")

    for reference in ("latest", image.digest):
        reply = await cache.get_manifest(APP, reference, **{"If-None-Match": spelling.format(image.digest)})

        assert (reply.status, reply.body) == (304, b"")
        assert reply.headers["ETag"] == f'"{image.digest}"'
        assert reply.headers["Docker-Content-Digest"] == image.digest


async def test_a_client_that_has_another_one_gets_this(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")

    reply = await cache.get_manifest(APP, "latest", **{"If-None-Match": f'"sha256:{"0" * 64}"'})

    assert (reply.status, reply.body) == (200, image.body)


async def test_the_condition_of_a_client_is_not_passed_on_where_it_would_count(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")

    await cache.get_manifest(APP, "latest", **{"If-None-Match": f'"{image.digest}"'})

    assert not [each for each in hub.requests if "If-None-Match" in each.headers]


async def test_a_lost_index_costs_no_pull(cache: CacheRig, hub: FakeHub) -> None:
    images = [hub.add_image(APP, "latest"), hub.add_image("library/alpine", "3")]
    for image in images:
        await cache.get_manifest(image.repository, image.tag)
    await cache.stop()
    for leftover in cache.directory.glob("index.sqlite*"):
        leftover.unlink()
    hub.reset_counts()

    await cache.start()
    replies = [await cache.get_manifest(image.repository, image.tag) for image in images]
    by_digest = await cache.get_manifest(APP, images[0].digest)

    assert [reply.body for reply in (*replies, by_digest)] == [images[0].body, images[1].body, images[0].body]
    assert gets(hub) == 0


async def test_a_restart_with_upstream_gone_answers_what_is_cached(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    await cache.stop()
    await hub.gone()
    cache.clock.advance(24 * 3600)

    await cache.start()
    replies = [await cache.get_manifest(APP, reference) for reference in ("latest", image.digest)]

    assert [(reply.status, reply.body) for reply in replies] == [(200, image.body)] * 2


async def test_a_layer_is_no_manifest(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    assert (await cache.get_blob(APP, image.layers[0])).status == 200

    replies = [await gather(cache.get_manifest(APP, image.layers[0]), cache.head_manifest(APP, image.layers[0]))]

    for got, head in replies:
        assert (got.status, error_code(got)) == (404, "MANIFEST_UNKNOWN")
        assert head.status == 404


async def test_a_manifest_that_was_got_as_a_blob_keeps_its_type(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    hub.link_blob(APP, hub.add_blob(image.body))
    assert (await cache.get_blob(APP, image.digest)).body == image.body

    reply = await cache.get_manifest(APP, image.digest)

    assert (reply.body, reply.headers["Content-Type"]) == (image.body, image.media_type)
    assert hub.counted_pulls == 0


async def test_a_blob_that_is_missing_says_nothing_of_a_manifest(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")

    assert (await cache.get_blob(APP, image.digest)).status == 404
    assert (await cache.get_manifest(APP, image.digest)).status == 200


async def test_a_manifest_that_is_missing_is_asked_for_once_in_30_seconds(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    digest = "sha256:" + "a" * 64

    first = [await cache.get_manifest(APP, digest) for _ in range(5)]
    first += [await cache.head_manifest(APP, digest)]
    asked = gets(hub, digest) + heads(hub, digest)
    cache.clock.advance(30)
    await cache.get_manifest(APP, digest)

    assert {reply.status for reply in first} == {404}
    assert error_code(first[0]) == "MANIFEST_UNKNOWN"
    assert first[0].headers["Content-Type"] == "application/json"
    assert asked == 1
    assert gets(hub, digest) == 2
    assert cache.blobs_on_disk() == set()


async def test_a_manifest_that_cannot_be_stored_is_answered_all_the_same_and_costs_one_pull(
    cache: CacheRig, hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    image = hub.add_image(APP, "latest")
    shutil.rmtree(cache.directory / "partial")

    reply = await cache.get_manifest(APP, "latest")

    assert (reply.status, reply.body) == (200, image.body)
    assert [record.getMessage() for record in caplog.records if "cannot store" in record.getMessage()]
    assert cache.blobs_on_disk() == set()
    assert (await cache.get_manifest(APP, "latest")).body == image.body
    assert hub.counted_pulls == 1


async def test_an_index_and_its_children_are_fetched_only_as_they_are_asked_for(cache: CacheRig, hub: FakeHub) -> None:
    index = hub.add_index(APP, "multi", oci=True)

    listed = await cache.get_manifest(APP, "multi", OCI_INDEX)
    child = await cache.get_manifest(APP, index.images[0].digest)

    assert (listed.body, listed.headers["Content-Type"]) == (index.body, OCI_INDEX)
    assert child.body == index.images[0].body
    assert hub.counted_pulls == 2
    assert cache.blobs_on_disk() == {index.digest, index.images[0].digest}


async def test_no_manifest_is_ever_fetched_by_its_tag(cache: CacheRig, hub: FakeHub) -> None:
    for tag in ("a", "b"):
        hub.add_image(APP, tag)
        await cache.get_manifest(APP, tag)
        await cache.head_manifest(APP, tag)

    await cache.get_manifest(APP, "missing", DOCKER_MANIFEST)

    assert gets_by_tag(hub) == []
