"""A tag has moved, and of the new image less is here than of the old one, when upstream cannot be asked any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.pull.errands import BEGUN_SECONDS
from tests.cache_rig import CacheRig
from tests.fake_hub import DOCKER_LIST, DOCKER_MANIFEST, FakeHub
from tests.fake_hub.library import Index
from tests.quota_rig import governed, spend_to

REPOSITORY = "library/tool"
TYPES = (DOCKER_LIST, DOCKER_MANIFEST)
PLATFORMS = ("linux/amd64", "linux/arm64", "linux/s390x")


def make(hub: FakeHub, version: str) -> Index:
    """An index of three platforms, that no tag points to."""
    images = {
        each: hub.add_image(REPOSITORY, None, [f"{each} {version}".encode()], platform=each) for each in PLATFORMS
    }
    return hub.add_index(REPOSITORY, None, images)


async def pull(cache: CacheRig, index: Index, *numbers: int) -> None:
    """The tag, and the manifests for some of the platforms of the index that it points to."""
    head = await cache.head_manifest(REPOSITORY, "latest", *TYPES)
    assert head.headers["Docker-Content-Digest"] == index.digest
    for digest in (index.digest, *(index.images[number].digest for number in numbers)):
        assert (await cache.get_manifest(REPOSITORY, digest, *TYPES)).status == 200


async def moved(hub: FakeHub, cache: CacheRig, old: tuple[int, ...], new: tuple[int, ...]) -> tuple[Index, Index]:
    """Two versions, of which these platforms were pulled."""
    before, after = make(hub, "old"), make(hub, "new")
    hub.tag(REPOSITORY, "latest", before.digest)
    await pull(cache, before, *old)
    hub.tag(REPOSITORY, "latest", after.digest)
    cache.clock.advance(cache.tags + 1)
    await pull(cache, after, *new)
    return before, after


async def told(cache: CacheRig) -> tuple[set[str], str]:
    """Where HEAD and GET say that the tag points to, and how that came about."""
    head = await cache.head_manifest(REPOSITORY, "latest", *TYPES)
    get = await cache.get_manifest(REPOSITORY, "latest", *TYPES)
    assert (head.status, get.status, head.cache_status) == (200, 200, get.cache_status)
    return {reply.headers["Docker-Content-Digest"] for reply in (head, get)}, get.cache_status


@pytest.mark.parametrize("trouble", ["no quota", "down"])
@pytest.mark.parametrize(
    ("old", "new", "serves"),
    [((0, 1), (1,), "old"), ((0, 1, 2), (1,), "old"), ((0,), (1,), "new"), ((0,), (0, 1), "new"), ((0, 1), (), "old")],
    ids=lambda each: str(each),
)
async def test_the_version_that_is_here_for_more_platforms_is_served(
    hub: FakeHub, cache: CacheRig, trouble: str, old: tuple[int, ...], new: tuple[int, ...], serves: str
) -> None:
    before, after = await moved(hub, cache, old, new)
    if trouble == "down":
        await hub.gone()
        cache.clock.advance(cache.tags + 1)
    else:
        hub.set_remaining(0)
        await cache.get_manifest(REPOSITORY, hub.add_image(REPOSITORY, None, [b"cold"]).digest)

    digests, status = await told(cache)

    assert digests == {before.digest if serves == "old" else after.digest}
    if serves == "old":
        assert status.endswith("detail=limited" if trouble == "no quota" else "detail=unavailable")
        assert (await cache.get_manifest(REPOSITORY, before.images[0].digest, *TYPES)).status == 200


async def test_while_pulls_pass_the_newest_version_is_served(hub: FakeHub, cache: CacheRig) -> None:
    _, after = await moved(hub, cache, (0, 1), (1,))

    assert await told(cache) == ({after.digest}, "pullthrough; hit")
    assert (await cache.get_manifest(REPOSITORY, after.images[0].digest, *TYPES)).status == 200


async def test_what_is_left_but_kept_for_others_counts_as_nothing(hub: FakeHub, tmp_path: Path) -> None:
    async with governed(hub, tmp_path, important=("acme/*",), wait=0.0) as cache:
        before, _ = await moved(hub, cache, (0, 1), (1,))
        await spend_to(cache, hub, 4)

        digests, status = await told(cache)

    assert (digests, status) == ({before.digest}, "pullthrough; fwd=stale; detail=quota-saved")


async def test_what_is_left_for_the_missing_parts_too_serves_the_newest_version(hub: FakeHub, tmp_path: Path) -> None:
    """A changed tag would not be fetched any more, but what is not here at all is."""
    async with governed(hub, tmp_path, important=("acme/*",), wait=0.0) as cache:
        _, after = await moved(hub, cache, (0, 1), (1,))
        await spend_to(cache, hub, 8)
        cache.clock.advance(BEGUN_SECONDS)

        assert (await told(cache))[0] == {after.digest}
        assert (await cache.get_manifest(REPOSITORY, after.images[0].digest, *TYPES)).status == 200


async def test_what_a_head_has_promised_is_not_refused(hub: FakeHub, tmp_path: Path) -> None:
    """While something is left: between HEAD and GET the level may fall."""
    async with governed(hub, tmp_path, important=("acme/*",), wait=0.0) as cache:
        image = hub.add_image(REPOSITORY, "latest", [b"new"])
        other = hub.add_image(REPOSITORY, "other", [b"other"])
        assert (await cache.head_manifest(REPOSITORY, "latest", *TYPES)).status == 200
        await spend_to(cache, hub, 4)

        promised = await cache.get_manifest(REPOSITORY, image.digest)
        late = [await cache.head_manifest(REPOSITORY, "other"), await cache.get_manifest(REPOSITORY, other.digest)]

    assert (promised.status, [reply.status for reply in late]) == (200, [200, 429])
