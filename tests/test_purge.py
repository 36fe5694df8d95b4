"""Purging by the door: what goes, what stays, what is on disk, and what the next pull costs."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from proxy.oci.names import Digest
from proxy.store.blobs import Blobs
from tests.blob_rig import MIB, add_layer, no_fills, partial_has
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.house_rig import (
    ALPINE,
    BASE,
    BUSYBOX,
    OTHER,
    Document,
    ask,
    on_disk,
    pull,
    pulled,
    pulled_index,
    purged,
    told,
)

LARGE = 32 * MIB
"""More than the sockets between us and a client take in."""

# A tag


async def test_a_purged_image_is_fetched_anew_by_the_next_pull(hub: FakeHub, cache: CacheRig) -> None:
    image = await pulled(hub, cache, ALPINE, "3.20", b"one", b"two")
    hub.reset_counts()

    document = await purged(cache, image="alpine:3.20")

    assert cache.blobs_on_disk() == set()
    assert (document["tags"], document["complete"]) == (["3.20"], True)
    assert document["removed"] == {"blobs": 4, "bytes": sum(each["size"] for each in document["items"])}
    assert hub.requests == []
    await pull(cache, ALPINE, "3.20")
    assert hub.counted_pulls == 1
    assert [hub.cdn_count(digest) for digest in image.blobs] == [1, 1, 1]
    assert cache.blobs_on_disk() == on_disk(image)


async def test_what_other_tags_need_stays(hub: FakeHub, cache: CacheRig) -> None:
    old = await pulled(hub, cache, ALPINE, "3.19", BASE, b"3.19")
    new = await pulled(hub, cache, ALPINE, "3.20", BASE, b"3.20")
    hub.tag(ALPINE, "latest", new.digest)
    await pull(cache, ALPINE, "latest")

    document = await purged(cache, image="alpine:3.20")
    assert cache.blobs_on_disk() == on_disk(old) | on_disk(new)
    assert (document["removed"]["blobs"], document["needed"]["blobs"]) == (0, 4)
    await purged(cache, image="alpine")
    assert cache.blobs_on_disk() == on_disk(old)
    hub.reset_counts()
    await pull(cache, ALPINE, "3.19")
    assert hub.requests == []


async def test_what_was_pulled_by_digest_stays(hub: FakeHub, cache: CacheRig) -> None:
    by_digest = hub.add_image(ALPINE, None, [BASE])
    await pull(cache, ALPINE, by_digest.digest)
    await pulled(hub, cache, ALPINE, "3.20", BASE, b"3.20")
    await purged(cache, image="alpine:3.20")
    assert cache.blobs_on_disk() == on_disk(by_digest)


async def test_what_the_tag_was_before_goes_too(hub: FakeHub, cache: CacheRig) -> None:
    await pulled(hub, cache, ALPINE, "latest", b"old")
    cache.clock.advance(1000)
    await pulled(hub, cache, ALPINE, "latest", b"new")
    await purged(cache, image="alpine")
    assert cache.blobs_on_disk() == set()
    assert len((await told(cache, "/api/history/alpine"))["history"]) == 2


async def test_an_index_goes_with_all_its_images(hub: FakeHub, cache: CacheRig) -> None:
    await pulled_index(hub, cache, ALPINE, "latest")
    await purged(cache, image="alpine")
    assert cache.blobs_on_disk() == set()
    assert (await told(cache, "/api/repositories"))["repositories"] == []


async def test_what_other_repositories_hold_stays_on_disk(hub: FakeHub, cache: CacheRig) -> None:
    await pulled(hub, cache, ALPINE, "3.20", BASE, b"alpine")
    app = await pulled(hub, cache, OTHER, "v1", BASE, b"app")

    document = await purged(cache, image="alpine:3.20")

    assert cache.blobs_on_disk() == on_disk(app)
    assert document["kept"] == {"blobs": 1, "bytes": len(BASE)}
    (kept,) = [each for each in document["items"] if not each["removed"]]
    assert (kept["size"], kept["shared_count"]) == (len(BASE), 1)


async def test_a_layer_that_is_purged_in_one_repository_has_to_be_proven_again_there(
    hub: FakeHub, cache: CacheRig
) -> None:
    image = await pulled(hub, cache, ALPINE, "3.20", BASE)
    await pulled(hub, cache, OTHER, "v1", BASE)
    await purged(cache, image="alpine:3.20")
    hub.reset_counts()
    assert (await cache.get_blob(ALPINE, image.layers[0])).body == BASE
    assert [request.method for request in hub.requests if request.listener == "registry"] == ["HEAD"]


# A digest


async def test_a_digest_goes_with_its_tags_whoever_needs_it(hub: FakeHub, cache: CacheRig) -> None:
    index = await pulled_index(hub, cache, ALPINE, "latest")
    held = index.images[0]
    document = await purged(cache, image=f"alpine@{held.digest}")
    assert (document["tags"], cache.blobs_on_disk()) == ([], {index.digest})

    document = await purged(cache, image=f"alpine@{index.digest}")
    assert (document["tags"], cache.blobs_on_disk()) == (["latest"], set())
    status, _ = await ask(cache, "GET", "/api/images/alpine:latest")
    assert status == 404


async def test_a_purged_digest_is_no_stale_answer_of_its_tag(hub: FakeHub, cache: CacheRig) -> None:
    old = await pulled(hub, cache, ALPINE, "latest", b"old")
    cache.clock.advance(1000)
    new = await pulled(hub, cache, ALPINE, "latest", b"new")
    await purged(cache, image=f"alpine@{old.digest}")
    assert cache.blobs_on_disk() == on_disk(new)
    assert (await told(cache, "/api/images/alpine:latest"))["previous"] is None


# A repository


async def test_a_repository_is_forgotten_as_if_it_had_never_been_asked_for(hub: FakeHub, cache: CacheRig) -> None:
    await pulled(hub, cache, ALPINE, "3.19", BASE)
    await pulled_index(hub, cache, ALPINE, "latest")
    app = await pulled(hub, cache, OTHER, "v1", BASE)
    await ask(cache, "PUT", "/api/pins/alpine")
    hub.untag(ALPINE, "3.19")

    document = await purged(cache, repository="alpine")

    assert cache.blobs_on_disk() == on_disk(app)
    assert (sorted(document["tags"]), document["complete"]) == (["3.19", "latest"], True)
    assert document["pinned_at"] is not None
    for path in ("/api/images/alpine:latest", "/api/history/alpine"):
        assert (await ask(cache, "GET", path))[0] == 404
    listed = (await told(cache, "/api/repositories"))["repositories"]
    assert [(each["name"], each["blobs"]) for each in listed] == [("alpine", 0), ("owner/app", 4 - 1)]
    assert (await cache.get_manifest(ALPINE, "3.19")).status == 404
    status, document = await ask(cache, "POST", "/api/purge", {"repository": "busybox"})
    assert (status, document) == (404, {"error": "nothing is known of busybox"})


async def test_a_large_repository_goes_in_steps(hub: FakeHub, cache: CacheRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.housekeeping.purging.STEP_LINKS", 3)
    for tag in ("1", "2"):
        await pulled(hub, cache, ALPINE, tag)
    steps: list[Document] = []
    while not steps or not steps[-1]["complete"]:
        steps.append(await purged(cache, repository="alpine"))
    assert [each["removed"]["blobs"] for each in steps] == [3, 3]
    assert cache.blobs_on_disk() == set()


async def test_whether_a_repository_is_public_is_asked_anew(hub: FakeHub, cache: CacheRig) -> None:
    await pulled(hub, cache, ALPINE, "3.20")
    hub.make_private(ALPINE)
    hub.expire_tokens()
    assert (await cache.get_manifest(ALPINE, "3.20")).status == 200
    await purged(cache, repository="alpine")
    assert (await cache.get_manifest(ALPINE, "3.20")).status == 403


async def test_what_upstream_denied_is_asked_anew(hub: FakeHub, cache: CacheRig) -> None:
    await pulled(hub, cache, ALPINE, "3.19")
    assert (await cache.get_manifest(ALPINE, "3.20")).status == 404
    hub.add_image(ALPINE, "3.20")
    assert (await cache.get_manifest(ALPINE, "3.20")).status == 404
    await purged(cache, image="alpine:3.19")
    assert (await cache.get_manifest(ALPINE, "3.20")).status == 200


# By age


async def test_what_was_not_used_for_long_goes(hub: FakeHub, cache: CacheRig) -> None:
    await pulled(hub, cache, ALPINE, "3.20", BASE, b"alpine")
    pinned = await pulled(hub, cache, BUSYBOX, "latest")
    await ask(cache, "PUT", "/api/pins/busybox")
    cache.clock.advance(3600)
    app = await pulled(hub, cache, OTHER, "v1", BASE, b"app")

    document = await purged(cache, older_than=1800)

    assert cache.blobs_on_disk() == on_disk(app) | on_disk(pinned)
    assert document["removed"]["blobs"] == 3
    hub.reset_counts()
    await pull(cache, ALPINE, "3.20")
    assert hub.counted_pulls == 1


async def test_the_use_of_a_manifest_is_the_use_of_its_image(hub: FakeHub, cache: CacheRig) -> None:
    image = await pulled(hub, cache, ALPINE, "3.20")
    cache.clock.advance(3600)
    assert (await cache.get_manifest(ALPINE, "3.20")).status == 200
    assert (await purged(cache, older_than=1800))["removed"]["blobs"] == 0
    assert cache.blobs_on_disk() == on_disk(image)


async def test_what_is_old_goes_in_steps(hub: FakeHub, cache: CacheRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.housekeeping.house.PIECE_BLOBS", 2)
    monkeypatch.setattr("proxy.housekeeping.house.STEP_BLOBS", 3)
    for tag in ("1", "2"):
        await pulled(hub, cache, ALPINE, tag)
    cache.clock.advance(3600)
    steps: list[Document] = []
    while not steps or not steps[-1]["complete"]:
        steps.append(await purged(cache, older_than=60))
    assert [each["removed"]["blobs"] for each in steps] == [4, 2]
    assert cache.blobs_on_disk() == set()


# What goes on meanwhile


@pytest.mark.parametrize("wanted", [{"image": "alpine:3.20"}, {"repository": "alpine"}])
async def test_whoever_is_being_sent_something_gets_it_to_its_end(
    hub: FakeHub, cache: CacheRig, wanted: dict[str, str]
) -> None:
    layer = hub.add_synthetic_blob(LARGE)
    hub.add_image(ALPINE, "3.20", [layer])
    await pull(cache, ALPINE, "3.20")
    async with cache.open(f"/v2/{ALPINE}/blobs/{layer}") as response:
        begun = await response.content.readexactly(1)
        await purged(cache, **wanted)
        assert cache.blobs_on_disk() == set()
        assert begun + await response.read() == hub.content_of(layer).read(0, LARGE)


async def test_what_is_being_sent_is_not_old(hub: FakeHub, cache: CacheRig) -> None:
    layer = hub.add_synthetic_blob(LARGE)
    hub.add_image(ALPINE, "3.20", [layer])
    await pull(cache, ALPINE, "3.20")
    async with cache.open(f"/v2/{ALPINE}/blobs/{layer}") as response:
        await response.content.readexactly(1)
        cache.clock.advance(3600)
        await purged(cache, older_than=60)
        assert cache.blobs_on_disk() == {layer}
        assert len(await response.read()) == LARGE - 1


async def test_a_fill_that_runs_goes_on(hub: FakeHub, cache: CacheRig) -> None:
    layer = add_layer(hub, MIB, repository=ALPINE)
    hub.add_image(ALPINE, "3.20", [layer.digest])
    await cache.get_manifest(ALPINE, "3.20")
    hub.hold(layer.digest, after_bytes=MIB // 2)
    getting = asyncio.ensure_future(cache.get_blob(ALPINE, layer.digest))
    await partial_has(cache, layer.digest, MIB // 2)

    await purged(cache, image="alpine:3.20")
    hub.release(layer.digest)

    assert (await getting).body == layer.content
    await no_fills(cache)
    assert cache.blobs_on_disk() == {layer.digest}


async def test_a_blob_that_is_just_getting_its_name_is_counted_afterwards(
    hub: FakeHub, cache: CacheRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = hub.add_image(ALPINE, "3.20", [b"x" * MIB])
    await cache.get_manifest(ALPINE, "3.20")
    named, go_on, commit = threading.Event(), threading.Event(), Blobs.commit

    def slowly(blobs: Blobs, digest: Digest, written: Path, fd: int) -> None:
        commit(blobs, digest, written, fd)
        named.set()
        go_on.wait(10)

    monkeypatch.setattr(Blobs, "commit", slowly)
    async with cache.open(f"/v2/{ALPINE}/blobs/{image.layers[0]}") as response:
        await response.read()
    await eventually(named.is_set, label="the blob has its name")

    await purged(cache, image="alpine:3.20")
    go_on.set()
    await no_fills(cache)

    assert cache.blobs_on_disk() == {image.layers[0]}
    assert cache.app.store.index.blob_count == 1


# Told only


@pytest.mark.parametrize("wanted", [{"image": "alpine:3.20"}, {"repository": "alpine"}, {"older_than": 60}])
async def test_a_dry_run_tells_what_would_go_and_changes_nothing(
    hub: FakeHub, cache: CacheRig, wanted: dict[str, object]
) -> None:
    image = await pulled(hub, cache, ALPINE, "3.20", b"one", b"two")
    cache.clock.advance(3600)
    before = await told(cache, "/api/images/alpine:3.20")

    dry = await purged(cache, **wanted, dry_run=True)

    assert dry["dry_run"] is True
    assert {each["digest"] for each in dry["items"] if each["removed"]} == on_disk(image) == cache.blobs_on_disk()
    assert await told(cache, "/api/images/alpine:3.20") == before
    wet = await purged(cache, **wanted)
    assert wet["removed"] == dry["removed"]
    assert cache.blobs_on_disk() == set()


# Pins


async def test_pins_are_listed_and_taken_away(hub: FakeHub, cache: CacheRig) -> None:
    for name in ("alpine", "owner/app"):
        status, document = await ask(cache, "PUT", f"/api/pins/{name}")
        assert (status, document["pinned_at"]) == (200, cache.clock.now)
    since = cache.clock.now
    cache.clock.advance(10)
    await ask(cache, "PUT", "/api/pins/alpine")
    first = await told(cache, "/api/pins", limit=1)
    assert first["pins"] == [{"repository": "docker.io/library/alpine", "name": "alpine", "pinned_at": since}]
    second = await told(cache, "/api/pins", limit=1, after=first["next"])
    assert [each["name"] for each in second["pins"]] == ["owner/app"]
    assert (await ask(cache, "DELETE", "/api/pins/alpine"))[0] == 200
    await cache.restart()
    assert [each["name"] for each in (await told(cache, "/api/pins"))["pins"]] == ["owner/app"]
