"""What costs nothing and failed in a way that may pass is sent once more; a counted pull never is, knowingly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from proxy.oci.errors import Unavailable
from proxy.oci.names import Digest
from proxy.upstream import retries
from proxy.upstream.client import Upstream
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub, Image, at
from tests.upstream_rig import LATEST, REPOSITORY, asking, fetched

Verb = Callable[[Upstream, Image], Awaitable[object]]

FREE: dict[str, tuple[str, Verb]] = {
    "HEAD manifest": ("manifest", lambda upstream, image: upstream.head_manifest(REPOSITORY, LATEST)),
    "HEAD blob": ("blob", lambda upstream, image: upstream.head_blob(REPOSITORY, Digest.parse(image.config))),
    "tags": ("tags", lambda upstream, image: upstream.list(REPOSITORY, None, "")),
    "referrers": ("referrers", lambda upstream, image: upstream.list(REPOSITORY, Digest.parse(image.digest), "")),
    "token": ("token", lambda upstream, image: upstream.head_manifest(REPOSITORY, LATEST)),
    "is public": ("manifest", lambda upstream, image: upstream.is_public(REPOSITORY, LATEST)),
}


@pytest.fixture(autouse=True)
def asks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "PAUSE_SECONDS", 0.001)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("verb", FREE)
async def test_a_5xx_to_what_is_free_is_asked_once_more(verb: str, status: int) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        image = hub.add_image(REPOSITORY.name, "latest")
        target, ask = FREE[verb]
        rule = hub.fail(target, status, times=1)
        await ask(upstream, image)
        assert rule.used == 1

        upstream.clock.turn(3600)
        rule = hub.fail(target, status)
        with pytest.raises(Unavailable, match=str(status)):
            await ask(upstream, image)
        assert rule.used == 2, "and no more than once"


@pytest.mark.parametrize("status", [400, 429, 501, 505])
async def test_what_will_not_pass_is_not_asked_again(status: int) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        rule = hub.fail("manifest", status)
        with pytest.raises(Exception, match=r"docker\.io"):
            await upstream.head_manifest(REPOSITORY, LATEST)
        assert rule.used == 1


async def test_a_503_that_says_when_is_not_asked_again_before() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        rule = hub.fail("manifest", 503, retry_after=7)
        with pytest.raises(Unavailable) as refused:
            await upstream.head_manifest(REPOSITORY, LATEST)
        assert (rule.used, refused.value.retry_after) == (1, 7.0)


@pytest.mark.parametrize("status", [500, 503])
async def test_a_manifest_that_was_answered_with_an_error_is_not_fetched_again(status: int) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        image = hub.add_image(REPOSITORY.name, "latest")
        rule = hub.fail(at("manifest", method="GET"), status, times=1)

        with pytest.raises(Unavailable, match=str(status)):
            await upstream.get_manifest(REPOSITORY, Digest.parse(image.digest))
        assert rule.used == 1
        assert upstream.sample("counted_pulls_total") == 1


async def test_a_manifest_whose_connection_broke_before_any_answer_is_asked_for_once_more() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        image = hub.add_image(REPOSITORY.name, "latest")
        gate = hub.hang(at("manifest", method="GET"), times=1)
        asked = asyncio.create_task(upstream.get_manifest(REPOSITORY, Digest.parse(image.digest)))
        await eventually(lambda: gate.waiting == 1)
        gate.cut()

        assert (await asked).body == image.body
        assert upstream.sample("counted_pulls_total") == 1


async def test_a_manifest_that_breaks_off_after_its_headers_is_not_fetched_again() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        image = hub.add_image(REPOSITORY.name, "latest")
        hub.cut("manifest", 10)

        with pytest.raises(Unavailable, match="broke"):
            await upstream.get_manifest(REPOSITORY, Digest.parse(image.digest))
        assert hub.count("GET", "manifest") == 1


async def test_an_upstream_that_is_back_in_a_moment_was_not_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "PAUSE_SECONDS", 0.5)
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.head_manifest(REPOSITORY, LATEST)
        await hub.gone()
        asked = asyncio.create_task(upstream.head_manifest(REPOSITORY, LATEST))
        await eventually(lambda: upstream.sample("upstream_responses_total", kind="manifest", code="error") == 1)
        await hub.back()

        await asked


async def test_the_opening_of_a_blob_is_left_to_the_attempts_of_its_fill() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        image = hub.add_image(REPOSITORY.name, "latest")
        rule = hub.fail(at("blob", method="GET"), 500, times=1)

        with pytest.raises(Unavailable, match="500"):
            await fetched(upstream, image.config)
        assert rule.used == 1


async def test_a_time_out_is_not_repeated() -> None:
    async with FakeHub() as hub, asking(hub, idle_timeout=0.1) as upstream:
        gate = hub.hang("manifest")
        hub.add_image(REPOSITORY.name, "latest")
        with pytest.raises(Unavailable, match="idle"):
            await upstream.head_manifest(REPOSITORY, LATEST)
        gate.release()
        assert hub.count("HEAD", "manifest") == 1


async def test_a_client_that_can_be_answered_waits_for_no_second_try(
    cache: CacheRig, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "PAUSE_SECONDS", 60.0)
    image = hub.add_image("acme/app", "latest")
    await cache.get_manifest("acme/app", "latest")
    cache.clock.advance(300)
    hub.fail("registry", 500)
    started = time.monotonic()

    stale = await cache.get_manifest("acme/app", "latest")

    assert (stale.body, "Warning" in stale.headers) == (image.body, True)
    assert time.monotonic() - started < 4


def test_the_pause_is_jittered_and_short() -> None:
    pauses = {retries.pause() for _ in range(100)}
    assert len(pauses) > 50
    assert min(pauses) >= 0.5 * retries.PAUSE_SECONDS and max(pauses) <= 1.5 * retries.PAUSE_SECONDS
