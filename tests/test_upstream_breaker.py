"""An upstream that cannot be asked is left alone for a while, and asked again with one question at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from proxy.config import UpstreamOptions
from proxy.oci.errors import RegistryError, Unavailable
from proxy.oci.names import Digest, Tag
from proxy.policy.breaker import FAILURES, MAX_SECONDS
from proxy.upstream.client import Upstream
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub, at
from tests.fallback_rig import APP, MIRROR, both, mark, mirrored
from tests.upstream_rig import LATEST, REPOSITORY, RiggedUpstream, asking, fetched, started

LITTLE = 2.0
"""Longer than a breaker that has just opened stays so."""


@pytest.fixture(autouse=True)
def asks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.upstream.retries.PAUSE_SECONDS", 0.001)


async def fail_questions(upstream: Upstream, count: int = FAILURES) -> None:
    """Ask so often, and get no answer."""
    for _ in range(count):
        with pytest.raises(Unavailable):
            await upstream.head_manifest(REPOSITORY, LATEST)


def is_open(upstream: RiggedUpstream) -> bool:
    """As the gauge and the status have it, which agree."""
    is_open = upstream.breaker_open_for() is not None
    assert upstream.sample("upstream_breaker_open") == is_open
    return is_open


TROUBLES: dict[str, Callable[[FakeHub], Awaitable[None] | object]] = {
    "gone": lambda hub: hub.gone(),
    "token server gone": lambda hub: hub.gone("token"),
    "500": lambda hub: hub.fail("registry", 500),
    "503": lambda hub: hub.fail("registry", 503, retry_after=5),
    "token 502": lambda hub: hub.fail("token", 502),
    "hangs": lambda hub: hub.hang("registry"),
    "no HTTP": lambda hub: hub.garbage("registry"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_it_opens_after_failures_in_a_row_and_then_nothing_is_sent(trouble: str) -> None:
    async with FakeHub() as hub, asking(hub, idle_timeout=0.1) as upstream:
        caused = TROUBLES[trouble](hub)
        if isinstance(caused, Awaitable):
            await caused
        await fail_questions(upstream, FAILURES - 1)
        assert not is_open(upstream)
        await fail_questions(upstream, 1)
        assert is_open(upstream)
        hub.reset_counts()

        for verb in (
            lambda: upstream.head_manifest(REPOSITORY, LATEST),
            lambda: upstream.get_manifest(REPOSITORY, LATEST),
            lambda: upstream.head_blob(REPOSITORY, Digest.of(b"")),
            lambda: upstream.list(REPOSITORY, None, ""),
            lambda: upstream.is_public(REPOSITORY, LATEST),
        ):
            with pytest.raises(Unavailable) as refused:
                await verb()
            assert refused.value.retry_after == upstream.breaker_open_for()
            assert refused.value.message.startswith("docker.io"), "the failure that opened it"
        assert hub.requests == []


async def test_a_name_that_does_not_resolve_opens_it() -> None:
    async with started("https://" + ".".join(["a" * 60] * 5)) as upstream:
        await fail_questions(upstream)
        assert is_open(upstream)


@pytest.mark.parametrize("status", [401, 403, 404, 429])
async def test_what_upstream_answers_is_no_failure(status: int) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.fail("manifest", status, retry_after=1)
        for _ in range(2 * FAILURES):
            with pytest.raises(RegistryError):
                await upstream.head_manifest(REPOSITORY, LATEST)
            upstream.clock.turn(60)
        assert not is_open(upstream)


async def test_nonsense_is_an_answer_too() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        hub.redirect_loop("manifest")
        await fail_questions(upstream, 2 * FAILURES)
        assert not is_open(upstream)


@pytest.mark.parametrize("status", [None, 401, 404])
async def test_one_answer_in_between_begins_the_row_anew(status: int | None) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        for _ in range(3):
            hub.fail("manifest", 500)
            await fail_questions(upstream, FAILURES - 1)
            hub.heal()
            if status is None:
                await upstream.head_manifest(REPOSITORY, LATEST)
                continue
            hub.fail("manifest", status)
            with pytest.raises(RegistryError):
                await upstream.head_manifest(REPOSITORY, LATEST)
            hub.heal()
        assert not is_open(upstream)


async def test_half_open_one_question_passes_at_a_time_and_its_answer_closes_it() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await hub.gone()
        await fail_questions(upstream)
        await hub.back()
        gate = hub.hang("manifest")
        upstream.clock.turn(LITTLE)
        hub.reset_counts()

        probe = asyncio.create_task(upstream.head_manifest(REPOSITORY, LATEST))
        await eventually(lambda: gate.waiting == 1)
        with pytest.raises(Unavailable) as refused:
            await upstream.head_manifest(REPOSITORY, Tag("other"))
        gate.release()
        await probe

        assert (refused.value.retry_after, hub.count("HEAD", "manifest", "other")) == (1.0, 0)
        assert not is_open(upstream)
        await upstream.head_manifest(REPOSITORY, LATEST)


async def test_a_probe_that_fails_opens_it_for_longer() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        await hub.gone()
        await fail_questions(upstream)
        first = upstream.breaker_open_for()
        upstream.clock.turn(LITTLE)
        await fail_questions(upstream, 1)
        second = upstream.breaker_open_for()

        assert first is not None and second is not None
        assert first <= 1.25 < 1.5 <= second


async def test_a_probe_that_is_given_up_leaves_its_place_to_the_next_question() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await hub.gone()
        await fail_questions(upstream)
        await hub.back()
        gate = hub.hang("manifest")
        upstream.clock.turn(LITTLE)
        probe = asyncio.create_task(upstream.head_manifest(REPOSITORY, LATEST))
        await eventually(lambda: gate.waiting == 1)
        probe.cancel()
        await asyncio.wait([probe])
        gate.release()

        await upstream.head_manifest(REPOSITORY, LATEST)
        assert not is_open(upstream)


@pytest.mark.parametrize("trouble", ["gone", "500", "hangs"])
async def test_a_cdn_that_is_ill_does_not_close_the_door_to_the_registry(trouble: str) -> None:
    async with FakeHub() as hub, asking(hub, idle_timeout=0.1) as upstream:
        image = hub.add_image(REPOSITORY.name, "latest")
        if trouble == "gone":
            await hub.gone("cdn")
        elif trouble == "500":
            hub.fail("cdn", 500)
        else:
            hub.hang("cdn")

        for _ in range(FAILURES + 1):
            with pytest.raises(Unavailable):
                await upstream.head_blob(REPOSITORY, Digest.parse(image.config))
            with pytest.raises(Unavailable):
                await fetched(upstream, image.config)
        assert not is_open(upstream)


@pytest.mark.parametrize("direct", [False, True], ids=["redirected", "direct"])
async def test_an_ill_blob_does_not_close_the_door_and_passes_it_when_it_is_closed(direct: bool) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.direct_blobs = direct
        image = hub.add_image(REPOSITORY.name, "latest")
        hub.fail(at("blob", method="GET"), 500)
        for _ in range(FAILURES + 1):
            with pytest.raises(Unavailable):
                await fetched(upstream, image.config)
        assert not is_open(upstream)

        hub.heal()
        hub.fail("manifest", 500)
        await fail_questions(upstream)
        assert is_open(upstream)
        await fetched(upstream, image.config)
        assert not is_open(upstream), "the registry answered"


async def test_while_it_is_open_what_is_held_is_answered_stale_at_once(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    cache.clock.advance(300)
    hub.fail("registry", 500)
    for number in range(FAILURES):
        assert (await cache.get_manifest(APP, f"other-{number}")).status == 503
    hub.heal()
    hub.hang("any")
    hub.reset_counts()

    unknown = await cache.get_manifest(APP, "unknown")
    stale = await cache.get_manifest(APP, "latest")

    assert unknown.status == 503 and unknown.headers["Retry-After"] in ("1", "2")
    assert (stale.status, stale.body) == (200, image.body)
    assert stale.cache_status == "pullthrough; fwd=stale; detail=unavailable"
    assert hub.requests == []


async def test_it_shows_in_metrics_and_status_until_upstream_answers(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    before = await shown(cache)
    await hub.gone()
    for number in range(FAILURES):
        await cache.get_manifest(APP, f"other-{number}")
    gauge, seconds = await shown(cache)
    cache.clock.advance(MAX_SECONDS)
    half_open = await shown(cache)
    await hub.back()
    await cache.get_manifest(APP, "other")

    assert (before, half_open) == ((0, None), (1, 0))
    assert gauge == 1 and seconds is not None and 0.75 <= seconds <= 1.25
    assert await shown(cache) == (0, None)


async def shown(cache: CacheRig) -> tuple[float | None, float | None]:
    """The gauge, and the seconds in the status."""
    (upstream,) = (await cache.status())["upstreams"]
    gauge = await cache.metric("pullthrough_upstream_breaker_open", upstream="docker.io")
    return gauge, upstream["breaker_open_seconds"]


async def test_while_it_is_open_fallbacks_are_asked_at_once_and_have_breakers_of_their_own(
    hub: FakeHub, tmp_path: Path
) -> None:
    async with FakeHub() as mirror, mirrored(hub, mirror, tmp_path / "cache") as cache:
        image = both(hub, mirror)
        hub.fail("registry", 500)
        for number in range(FAILURES):
            await cache.get_manifest(APP, f"other-{number}")
        hub.heal()
        hub.hang("any")
        hub.reset_counts()

        manifest = await cache.get_manifest(APP, "latest")
        blob = await cache.get_blob(APP, image.config)
        gauges = [await cache.metric("pullthrough_upstream_breaker_open", upstream=name) for name in HUB_AND_MIRROR]

        assert (manifest.status, manifest.body, mark(manifest)) == (200, image.body, (True, True))
        assert (blob.status, hub.requests, gauges) == (200, [], [1, 0])
        hub.heal()
        mirror.reset_counts()
        cache.clock.advance(MAX_SECONDS + 60)
        again = await cache.get_manifest(APP, "latest")
        assert (again.status, mark(again), mirror.requests) == (200, (False, False), [])


HUB_AND_MIRROR = ("docker.io", MIRROR)


async def test_an_upstream_of_its_own_is_not_left_alone_for_another_ones_failures(hub: FakeHub, tmp_path: Path) -> None:
    hub.add_image(APP, "latest")
    upstreams = (
        UpstreamOptions(name="down.example", url="http://127.0.0.1:1"),
        UpstreamOptions(name="up.example", url=hub.url),
    )
    async with CacheRig(hub.url, tmp_path / "cache", options={"upstreams": upstreams}) as cache:
        for number in range(FAILURES):
            assert (await cache.get_manifest(f"down.example/{APP}", f"tag-{number}")).status == 503
        assert (await cache.get_manifest(f"up.example/{APP}", "latest")).status == 200
