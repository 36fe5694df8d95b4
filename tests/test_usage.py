"""What was used when: the use of a tag is the use of all its image. Old rows that nothing needs are forgotten."""

from __future__ import annotations

import json

from proxy.clock import Clock
from proxy.oci.names import Digest, Repository, Tag
from proxy.store.index.bookkeeping import FORGET_SECONDS, Bookkeeper
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub

APP = "acme/app"
REPOSITORY = Repository.parse(APP)


async def used(cache: CacheRig) -> dict[str, float]:
    """When each blob of the index was last used, in seconds before now."""
    await cache.app.store.usage.flush()
    rows = await cache.app.store.index.query(
        lambda reader: reader.execute("SELECT digest, used_at FROM blobs").fetchall()
    )
    return {digest: cache.clock.now - moment for digest, moment in rows}


async def pull(cache: CacheRig, digest: str) -> None:
    """A manifest and all that it names."""
    manifest = json.loads((await cache.get_manifest(APP, digest)).body)
    for blob in [manifest["config"], *manifest["layers"]]:
        await cache.get_blob(APP, blob["digest"])


async def test_the_use_of_a_tag_is_the_use_of_its_whole_image(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest", [b"one", b"two"])
    other = hub.add_image(APP, "other", [b"three"])
    await pull(cache, image.digest)
    await pull(cache, other.digest)
    mine = {str(blob["digest"]) for blob in [json.loads(image.body)["config"], *json.loads(image.body)["layers"]]}

    cache.clock.advance(1000)
    await cache.head_manifest(APP, "latest")
    ages = await used(cache)

    assert mine | {image.digest} == {digest for digest, age in ages.items() if age == 0}
    assert {age for digest, age in ages.items() if digest not in mine | {image.digest}} == {1000}


async def test_the_use_of_an_index_is_the_use_of_the_platforms_that_are_held(cache: CacheRig, hub: FakeHub) -> None:
    index = hub.add_index(APP, "latest")
    await cache.get_manifest(APP, "latest")
    child = json.loads(index.body)["manifests"][0]["digest"]
    await pull(cache, child)
    assert len(await used(cache)) > 3

    cache.clock.advance(1000)
    await cache.get_manifest(APP, "latest")

    assert set((await used(cache)).values()) == {0}


async def test_the_use_of_a_blob_is_its_own(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest", [b"one", b"two"])
    await pull(cache, image.digest)
    layer = json.loads(image.body)["layers"][0]["digest"]

    cache.clock.advance(1000)
    await cache.get_blob(APP, layer)

    assert {digest for digest, age in (await used(cache)).items() if age == 0} == {layer}


async def test_uses_survive_a_restart(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest", [b"one"])
    await pull(cache, image.digest)
    cache.clock.advance(1000)
    await cache.get_manifest(APP, image.digest)

    await cache.restart()

    assert set((await used(cache)).values()) == {0}


async def test_old_rows_of_what_is_not_held_are_forgotten_and_no_others(cache: CacheRig, hub: FakeHub) -> None:
    kept, gone = hub.add_image(APP, "kept", [b"one"]), hub.add_image(APP, "gone", [b"two"])
    for image, tag in ((kept, "kept"), (gone, "gone")):
        await pull(cache, image.digest)
        await cache.get_manifest(APP, tag)
    store = cache.app.store
    await store.index.forget_blobs([Digest.parse(gone.digest)])
    clock: Clock = cache.clock

    forgotten_early = await Bookkeeper(store.usage, store.index, clock).prune()
    cache.clock.advance(FORGET_SECONDS + 1)
    forgotten = await Bookkeeper(store.usage, store.index, clock).prune()

    assert (forgotten_early, forgotten) == (0, 2)
    assert store.index.tag(REPOSITORY, Tag.parse("kept"), "") is not None
    assert store.index.tag(REPOSITORY, Tag.parse("gone"), "") is None
    assert store.index.visibility(REPOSITORY) is not None
