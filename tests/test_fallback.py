"""Fallbacks: when an upstream is down or limited another registry answers, marked, verified, and only then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.asked import gets
from tests.blob_rig import partial_has
from tests.cache_rig import CacheRig
from tests.fake_hub import ANONYMOUS, FakeHub
from tests.fallback_rig import APP, LAYER, MIRROR, TROUBLES, both, error, little_patience, mark, mirrored

HALF = len(LAYER) // 2


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


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_an_image_that_upstream_cannot_give_now_comes_from_the_fallback_and_its_tag_is_marked(
    cache: CacheRig, hub: FakeHub, mirror: FakeHub, trouble: str
) -> None:
    image = both(hub, mirror)
    await TROUBLES[trouble](hub)

    head = await cache.head_manifest(APP, "latest")
    tagged = await cache.get_manifest(APP, "latest")
    manifest = await cache.get_manifest(APP, image.digest)
    layer = await cache.get_blob(APP, image.layers[0])

    assert (head.headers["Docker-Content-Digest"], tagged.body) == (image.digest, image.body)
    assert (manifest.body, layer.body) == (image.body, LAYER)
    assert [mark(each) for each in (head, tagged, manifest, layer)] == [(True, True)] * 2 + [(False, False)] * 2
    assert tagged.headers["Warning"].startswith("299 - ")
    assert cache.blobs_on_disk() == {image.digest, image.layers[0]}
    answers = "pullthrough_fallback_answers_total"
    assert await cache.metric(answers, upstream="docker.io", source=MIRROR, kind="manifest") == 2
    assert await cache.metric(answers, upstream="docker.io", source=MIRROR, kind="blob") == 1


async def test_while_upstream_is_well_a_fallback_is_asked_nothing(
    cache: CacheRig, hub: FakeHub, mirror: FakeHub
) -> None:
    image = both(hub, mirror)

    replies = [
        await cache.head_manifest(APP, "latest"),
        await cache.get_manifest(APP, "latest"),
        await cache.head_blob(APP, image.layers[0]),
        await cache.get_blob(APP, image.layers[0]),
        await cache.send("GET", f"/v2/{APP}/tags/list"),
        await cache.send("GET", f"/v2/{APP}/referrers/{image.digest}"),
    ]

    assert [(each.status, mark(each)) for each in replies] == [(200, (False, False))] * 6
    assert mirror.requests == []
    assert await cache.metric("pullthrough_fallback_answers_total") is None


@pytest.mark.parametrize(("status", "code"), [(404, "MANIFEST_UNKNOWN"), (403, "DENIED")])
async def test_what_upstream_answers_stands_also_when_it_says_no(
    cache: CacheRig, hub: FakeHub, mirror: FakeHub, status: int, code: str
) -> None:
    image = both(hub, mirror)
    assert (await cache.get_manifest(APP, "latest")).status == 200
    hub.fail("manifest", status)
    hub.fail("blob", status)

    replies = [
        await cache.get_manifest(APP, "other"),
        await cache.get_manifest(APP, "sha256:" + "0" * 64),
        await cache.get_blob(APP, image.layers[0]),
    ]

    assert [each.status for each in replies] == [status] * 3
    assert error(replies[0]) == (status, code)
    assert mirror.requests == []


async def test_at_the_pull_limit_upstream_tells_the_tag_and_the_fallback_gives_the_manifest(
    cache: CacheRig, hub: FakeHub, mirror: FakeHub
) -> None:
    image = both(hub, mirror)
    hub.set_remaining(0)

    tagged = await cache.get_manifest(APP, "latest")
    layer = await cache.get_blob(APP, image.layers[0])

    assert (tagged.body, mark(tagged), layer.body) == (image.body, (False, False), LAYER)
    assert (gets(hub), hub.counted_pulls, gets(mirror, image.digest)) == (1, 0, 1)
    assert (mirror.count("HEAD", "manifest"), mirror.count("GET", "blob"), hub.count("GET", "blob")) == (0, 0, 1)


async def test_quotas_are_told_apart(cache: CacheRig, hub: FakeHub, mirror: FakeHub) -> None:
    image = both(hub, mirror)
    hub.set_remaining(0)
    await cache.get_manifest(APP, "latest")
    limit = "pullthrough_ratelimit_limit"

    assert await cache.metric(limit, upstream="docker.io", account="alice") == 100
    assert await cache.metric(limit, upstream=MIRROR, account="anonymous") == 500
    assert await cache.metric("pullthrough_counted_pulls_total", upstream=MIRROR) == 1
    assert mirror.counted_pulls_of(ANONYMOUS) == gets(mirror, image.digest) == 1


async def test_a_fallback_never_sees_the_credentials_or_tokens_of_the_upstream(
    cache: CacheRig, hub: FakeHub, mirror: FakeHub
) -> None:
    warm = both(hub, mirror, "warm", b"warm")
    await cache.get_manifest(APP, "warm")
    await cache.get_blob(APP, warm.layers[0])
    tokens = {each.headers.get("Authorization") for each in hub.requests} - {None}
    hub.fail("any", 502)
    image = both(hub, mirror)

    assert (await cache.get_manifest(APP, "latest")).body == image.body
    assert (await cache.get_blob(APP, image.layers[0])).body == LAYER

    seen = {each.headers.get("Authorization") for each in mirror.requests} - {None}
    assert tokens and seen and not tokens & seen
    assert not any((value or "").startswith("Basic") for value in seen)
    assert {each.identity for each in mirror.requests} == {ANONYMOUS}
    assert not any("alice" in each.url for each in mirror.requests)
    assert mirror.violations == []


async def test_wrong_bytes_of_a_fallback_are_never_stored_nor_served_whole(
    cache: CacheRig, hub: FakeHub, mirror: FakeHub
) -> None:
    image = both(hub, mirror)
    await hub.gone()
    mirror.corrupt(image.digest)
    mirror.corrupt(image.layers[0], at_byte=HALF)

    manifest = await cache.get_manifest(APP, image.digest)
    received = b""
    with pytest.raises(Exception, match="payload"):
        async with cache.open(f"/v2/{APP}/blobs/{image.layers[0]}") as response:
            async for part in response.content.iter_any():
                received += part

    assert error(manifest) == (503, "UNAVAILABLE")
    assert len(received) < len(LAYER)
    await cache.settled()
    assert cache.blobs_on_disk() == set()


async def test_a_blob_that_breaks_is_ended_by_the_fallback_from_where_it_broke(
    cache: CacheRig, hub: FakeHub, mirror: FakeHub
) -> None:
    image = both(hub, mirror)
    digest = image.layers[0]
    gate = hub.hold(digest, HALF)

    async with cache.open(f"/v2/{APP}/blobs/{digest}") as response:
        await partial_has(cache, digest, HALF)
        await hub.gone()
        gate.cut()
        body = await response.read()

    assert body == LAYER
    assert [each.range for each in mirror.requests if (each.kind, each.status) == ("cdn", 206)] == [f"bytes={HALF}-"]
    assert mirror.bytes_sent(digest) == len(LAYER) - HALF


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("has_it", [True, False])
async def test_when_the_fallback_cannot_help_either_the_error_is_the_upstreams(
    cache: CacheRig, hub: FakeHub, mirror: FakeHub, trouble: str, has_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.upstream.failures.SMALL_SECONDS", 0.5)
    hub.add_image(APP, "latest")
    if has_it:
        mirror.add_image(APP, "latest")
        await mirror.gone()
    await TROUBLES[trouble](hub)

    reply = await cache.get_manifest(APP, "latest")

    assert error(reply) == ((429, "TOOMANYREQUESTS") if trouble == "request limit" else (503, "UNAVAILABLE"))
    told = int(reply.headers.get("Retry-After", "0"))
    assert (600 <= told <= 750) is (trouble == "request limit")  # A little later than upstream said, at random.
    assert b"docker.io" in reply.body and MIRROR.encode() not in reply.body


async def test_a_list_is_the_upstreams_own_word_only(cache: CacheRig, hub: FakeHub, mirror: FakeHub) -> None:
    image = both(hub, mirror)
    await cache.get_manifest(APP, "latest")
    await hub.gone()

    tags = await cache.send("GET", f"/v2/{APP}/tags/list")
    referrers = await cache.send("GET", f"/v2/{APP}/referrers/{image.digest}")

    assert (error(tags), error(referrers)) == ((503, "UNAVAILABLE"), (503, "UNAVAILABLE"))
    assert mirror.requests == []
