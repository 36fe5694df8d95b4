"""One client waits once: two seconds in all while we hold an answer, whatever of upstream hangs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import pytest

from proxy.policy.freshness import REVALIDATION_PATIENCE_SECONDS
from proxy.policy.negatives import NEGATIVE_SECONDS
from proxy.pull import patience
from proxy.pull.patience import Patience, Slow
from tests.cache_rig import CacheRig, Reply
from tests.eventually import eventually
from tests.fake_hub import FakeHub, Recorded, at

APP = "acme/app"
A_DAY = 86400.0
"""By then everything is asked again: whether the repository is public, where the tag points, for a token."""
HANGING: dict[str, list[str | Callable[[Recorded], bool]]] = {
    "tokens": ["token"],
    "HEAD": [at("manifest", method="HEAD")],
    "tokens and HEAD": ["token", at("manifest")],
    "everything": ["any"],
}


async def timed(asked: Awaitable[Reply]) -> tuple[Reply, float]:
    started = time.monotonic()
    reply = await asked
    return reply, time.monotonic() - started


@pytest.mark.parametrize("hanging", HANGING)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_is_held_is_answered_stale_after_one_patience(
    cache: CacheRig, hub: FakeHub, hanging: str, method: str
) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    cache.clock.advance(A_DAY)
    hub.expire_tokens()
    for target in HANGING[hanging]:
        hub.hang(target)

    reply, waited = await timed(cache.send(method, f"/v2/{APP}/manifests/latest"))

    assert (reply.status, reply.headers["Docker-Content-Digest"]) == (200, image.digest)
    assert reply.body == (image.body if method == "GET" else b"")
    assert "slow to answer" in reply.headers["Warning"]
    assert waited < REVALIDATION_PATIENCE_SECONDS + 1
    hub.heal()


async def test_an_answer_that_used_the_patience_up_leaves_none_for_what_follows(cache: CacheRig, hub: FakeHub) -> None:
    """The tag has moved; the HEAD said so late, and its manifest does not come."""
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    hub.add_image(APP, "latest", [b"newer"])
    cache.clock.advance(300)
    late = hub.hang(at("manifest", method="HEAD"))
    hub.hang(at("manifest", method="GET"))

    asked = asyncio.create_task(timed(cache.get_manifest(APP, "latest")))
    await eventually(lambda: late.waiting == 1)
    asyncio.get_running_loop().call_later(0.7 * REVALIDATION_PATIENCE_SECONDS, late.release)
    reply, waited = await asked

    assert (reply.status, reply.body) == (200, image.body)
    assert waited < REVALIDATION_PATIENCE_SECONDS + 1
    hub.heal()


async def test_what_is_held_and_fresh_is_no_less_so_when_the_patience_is_used_up(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    moved = hub.add_image(APP, "latest", [b"newer"])
    cache.clock.advance(6 * 3600 - 100)
    await cache.get_manifest(APP, "latest")
    cache.clock.advance(200)  # The tag is fresh, the repository has to be asked about.
    await cache.restart()
    hub.hang("any")

    reply, _ = await timed(cache.get_manifest(APP, "latest"))

    assert (reply.status, reply.body, "Warning" in reply.headers) == (200, moved.body, False)
    hub.heal()


async def test_a_list_is_answered_stale_after_one_patience(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    fresh = await cache.send("GET", f"/v2/{APP}/tags/list")
    cache.clock.advance(A_DAY)
    hub.hang("any")

    reply, waited = await timed(cache.send("GET", f"/v2/{APP}/tags/list"))

    assert (reply.status, reply.body) == (200, fresh.body)
    assert "slow to answer" in reply.headers["Warning"]
    assert waited < REVALIDATION_PATIENCE_SECONDS + 1
    hub.heal()


@pytest.mark.parametrize("path", ["manifests/sha256-00.sig", "referrers/{digest}"])
async def test_what_was_not_there_is_said_to_be_missing_after_one_patience(
    cache: CacheRig, hub: FakeHub, path: str
) -> None:
    image = hub.add_image(APP, "latest")
    if path.startswith("referrers"):
        hub.fail("referrers", 404)
    url = f"/v2/{APP}/{path.format(digest=image.digest)}"
    assert (await cache.send("GET", url)).status == 404
    hub.heal()
    cache.clock.advance(NEGATIVE_SECONDS + 1)
    hub.hang("any")

    reply, waited = await timed(cache.send("GET", url))

    assert reply.status == 404
    assert waited < REVALIDATION_PATIENCE_SECONDS + 1
    hub.heal()


async def test_without_anything_a_client_waits_once_as_long_as_clients_do_and_the_question_goes_on(
    cache: CacheRig, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = hub.add_image(APP, "latest")
    monkeypatch.setattr(patience, "EMPTY_HANDED_SECONDS", 0.5)
    hub.hang("manifest")

    refused = await cache.get_manifest(APP, "latest")
    hub.heal()

    assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
    assert json.loads(refused.body)["errors"][0]["code"] == "UNAVAILABLE"

    async def arrived() -> bool:
        return (await cache.get_manifest(APP, "latest")).body == image.body

    await eventually(arrived)
    assert hub.counted_pulls == 1


async def test_patience_begins_with_the_request_and_not_with_each_question() -> None:
    loop = asyncio.get_running_loop()
    client = Patience()
    started = loop.time()
    never: asyncio.Future[None] = loop.create_future()
    with pytest.raises(Slow):
        await client.wait(asyncio.shield(never), holding=True)
    with pytest.raises(Slow):
        await client.wait(asyncio.shield(never), holding=True)
    assert REVALIDATION_PATIENCE_SECONDS <= loop.time() - started + 0.01 < REVALIDATION_PATIENCE_SECONDS + 1


async def test_what_is_known_at_once_is_told_however_late_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "REVALIDATION_PATIENCE_SECONDS", -1.0)

    async def known() -> int:
        return 7

    assert await Patience().wait(known(), holding=True) == 7
