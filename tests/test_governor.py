"""The governor by the door: what it does as the quota falls, whom it has wait, and what it says of every decision."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from proxy.config import ServerOptions
from proxy.policy.quota.account import Account
from proxy.policy.quota.governor import Priority
from proxy.quota import queue
from proxy.quota.queue import FairQueue
from tests.asked import gets, heads
from tests.cache_rig import ANY_PORT, CacheRig, Reply
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.quota_rig import APP, api, events, governed, hub_of, spend_to

OFFICIAL = "library/alpine"
CI = "ci/job"
WINDOW = 300.0


def detail(reply: Reply) -> str:
    return reply.cache_status.partition("detail=")[2]


def account(cache: CacheRig) -> Account:
    return cache.app.generation.upstreams["docker.io"].account


async def decided(cache: CacheRig, decision: str) -> float:
    return await cache.metric("pullthrough_governor_decisions_total", decision=decision) or 0.0


@pytest.mark.parametrize(("remaining", "level"), [(100, 0), (31, 0), (30, 1), (10, 2), (5, 3), (1, 3), (0, 4)])
async def test_the_level_is_told(tmp_path: Path, hub: FakeHub, remaining: int, level: int) -> None:
    async with governed(hub, tmp_path, important=("library/*",)) as cache:
        await spend_to(cache, hub, remaining)

        assert await cache.metric("pullthrough_governor_level") == level
        words = ["plenty", "careful", "tight", "reserve", "exhausted"]
        assert (await hub_of(cache))["level"] == words[level]
        assert [kind for kind, _ in await events(cache)] == (["level"] if level else [])


@pytest.mark.parametrize(("remaining", "lasts"), [(100, 1), (30, 2), (10, 6)])
async def test_windows_stretch_as_the_quota_falls(tmp_path: Path, hub: FakeHub, remaining: int, lasts: int) -> None:
    hub.add_image(APP, "latest")
    async with governed(hub, tmp_path) as cache:
        await cache.get_manifest(APP, "latest")
        await spend_to(cache, hub, remaining)
        cache.clock.advance(7 * WINDOW)
        await cache.get_manifest(APP, "latest")
        cache.clock.advance(lasts * WINDOW - 10)
        hub.reset_counts()

        within = await cache.get_manifest(APP, "latest")
        assert heads(hub) == 0
        assert detail(within) == ("quota-stretched" if lasts > 1 else "")
        cache.clock.advance(20)
        beyond = await cache.get_manifest(APP, "latest")

        assert heads(hub) == 1
        assert detail(beyond) == "revalidated"
        assert await decided(cache, "stretched") >= (lasts > 1)


async def test_windows_of_important_repositories_are_as_configured(tmp_path: Path, hub: FakeHub) -> None:
    hub.add_image(OFFICIAL, "latest")
    async with governed(hub, tmp_path, important=("library/*",)) as cache:
        await cache.get_manifest(OFFICIAL, "latest")
        await spend_to(cache, hub, 10)
        hub.reset_counts()

        await cache.get_manifest(OFFICIAL, "latest")

        assert heads(hub) == 1


@pytest.mark.parametrize(
    ("remaining", "repository", "saved"),
    [
        (100, CI, False),
        (30, CI, True),
        (30, APP, False),
        (10, APP, True),
        (10, OFFICIAL, False),
        (1, OFFICIAL, False),
    ],
)
@pytest.mark.parametrize("asked", ["GET", "HEAD"])
async def test_changed_tags_are_answered_with_what_we_hold_by_priority(
    tmp_path: Path, hub: FakeHub, remaining: int, repository: str, saved: bool, asked: str
) -> None:
    old = hub.add_image(repository, "latest")
    async with governed(hub, tmp_path, important=("library/*",), unimportant=("ci/*",)) as cache:
        await cache.get_manifest(repository, "latest")
        await spend_to(cache, hub, remaining)
        new = hub.add_image(repository, "latest", [b"new"])
        cache.clock.advance(7 * WINDOW)
        hub.reset_counts()

        reply = await cache.send(asked, f"/v2/{repository}/manifests/latest")

        assert reply.headers["Docker-Content-Digest"] == (old if saved else new).digest
        assert gets(hub) == (0 if saved or asked == "HEAD" else 1)
        assert (detail(reply) == "quota-saved") is saved
        assert ("little is left of the pull quota" in reply.headers.get("Warning", "")) is saved
        assert await decided(cache, "saved") == saved


async def test_the_reserve_is_for_important_repositories(tmp_path: Path, hub: FakeHub) -> None:
    hub.add_image(OFFICIAL, "latest")
    hub.add_image(APP, "cold", [b"cold"])
    async with governed(hub, tmp_path, important=("library/*",), wait=0.0) as cache:
        await spend_to(cache, hub, 5)

        refused = await cache.get_manifest(APP, "cold")
        served = await cache.get_manifest(OFFICIAL, "latest")

        assert (refused.status, served.status) == (429, 200)
        message = json.loads(refused.body)["errors"][0]["message"]
        assert (
            message == "5 of 100 pulls of docker.io are left, and kept for other repositories, and this is not cached"
        )
        assert hub.counted_pulls == 1
        assert (await decided(cache, "refused"), await decided(cache, "pass")) == (1, 1)
        assert "refused" in [kind for kind, _ in await events(cache)]


async def test_without_important_repositories_all_of_it_is_used(tmp_path: Path, hub: FakeHub) -> None:
    async with governed(hub, tmp_path, wait=0.0) as cache:
        await spend_to(cache, hub, 3)
        replies = []
        for number in range(4):
            hub.add_image(APP, f"v{number}", [b"%d" % number])
            replies.append(await cache.get_manifest(APP, f"v{number}"))

    assert [reply.status for reply in replies] == [200, 200, 200, 429]


async def test_a_pull_that_has_begun_is_not_stopped_half_way(tmp_path: Path, hub: FakeHub) -> None:
    child = hub.add_image(APP, None, [b"child"])
    hub.add_index(APP, "multi", {"linux/amd64": child})
    other = hub.add_image(APP, None, [b"other"])
    async with governed(hub, tmp_path, important=("library/*",), wait=0.0) as cache:
        await spend_to(cache, hub, 6)

        index = await cache.get_manifest(APP, "multi")
        inner = await cache.get_manifest(APP, child.digest)
        cold = await cache.get_manifest(APP, other.digest)

    assert (index.status, inner.status, cold.status) == (200, 200, 429)
    assert hub.counted_pulls == 2


async def test_what_is_unknown_is_plenty(tmp_path: Path, hub: FakeHub) -> None:
    hub.rate_limit = None
    async with governed(hub, tmp_path, important=("library/*",)) as cache:
        for number in range(5):
            hub.add_image(APP, f"v{number}", [b"%d" % number])
            assert (await cache.get_manifest(APP, f"v{number}")).status == 200

        assert (await hub_of(cache))["kind"] == "unlimited"
        assert await cache.metric("pullthrough_governor_level") == 0
        assert await cache.metric("pullthrough_ratelimit_remaining") is None


async def test_a_governor_that_is_switched_off_saves_nothing(tmp_path: Path, hub: FakeHub) -> None:
    hub.add_image(CI, "latest")
    async with governed(hub, tmp_path, governor=False, important=("library/*",), unimportant=("ci/*",)) as cache:
        await cache.get_manifest(CI, "latest")
        await spend_to(cache, hub, 2)
        new = hub.add_image(CI, "latest", [b"new"])
        cache.clock.advance(WINDOW + 1)

        reply = await cache.get_manifest(CI, "latest")

        assert reply.headers["Docker-Content-Digest"] == new.digest


# Waiting


async def test_a_cold_pull_waits_for_quota_that_is_about_to_come_back(tmp_path: Path, hub: FakeHub) -> None:
    hub.add_image(APP, "cold", [b"cold"])
    async with governed(hub, tmp_path, wait=20.0) as cache:
        hub.set_remaining(0)
        hub.retry_after = 5
        assert (await cache.get_manifest(APP, "cold")).status == 429

        waiting = asyncio.create_task(cache.get_manifest(APP, "cold"))
        await eventually(lambda: cache.app.quotas.governor.waiting(account(cache)) == 1)
        assert await cache.metric("pullthrough_quota_waiting") == 1
        hub.set_remaining(50)
        cache.clock.advance(5)
        reply = await waiting

        assert (reply.status, detail(reply)) == (200, "quota-waited")
        assert hub.counted_pulls == 1
        assert await decided(cache, "waited") == 1


async def test_a_cold_pull_that_would_wait_in_vain_is_refused_at_once_with_the_time_to_come_again(
    tmp_path: Path, hub: FakeHub
) -> None:
    hub.add_image(APP, "cold", [b"cold"])
    async with governed(hub, tmp_path, wait=3600.0) as cache, asyncio.timeout(60):
        hub.set_remaining(0)
        hub.retry_after = 2 * 3600
        await cache.get_manifest(APP, "cold")
        cache.clock.advance(100)

        reply = await cache.get_manifest(APP, "cold")

        assert (reply.status, reply.headers["Retry-After"]) == (429, "7100")


async def test_who_waits_in_vain_is_refused_and_asks_upstream_for_nothing_that_counts(
    tmp_path: Path, hub: FakeHub
) -> None:
    hub.add_image(APP, "cold", [b"cold"])
    async with governed(hub, tmp_path, wait=0.5) as cache:
        hub.set_remaining(0)
        hub.retry_after = 1
        await cache.get_manifest(APP, "cold")
        cache.clock.advance(0.6)
        hub.reset_counts()

        reply = await cache.get_manifest(APP, "cold")

        assert reply.status == 429
        assert gets(hub) == 0
        assert cache.app.quotas.governor.waiting(account(cache)) == 0


async def test_the_refusal_says_when_the_window_gives_something_back(tmp_path: Path, hub: FakeHub) -> None:
    """All was used by ourselves, the first pull an hour ago: in five hours it comes back."""
    hub.rate_limit = (3, 21600)
    async with governed(hub, tmp_path) as cache:
        for number in range(3):
            hub.add_image(APP, f"v{number}", [b"%d" % number])
            await cache.get_manifest(APP, f"v{number}")
            cache.clock.advance(1800)
        hub.add_image(APP, "cold", [b"cold"])
        cache.clock.advance(-1800)

        first = await cache.get_manifest(APP, "cold")
        again = await cache.get_manifest(APP, "cold")

        assert [each.status for each in (first, again)] == [429, 429]
        assert first.headers["Retry-After"] == again.headers["Retry-After"] == str(5 * 3600)
        assert (await hub_of(cache))["forecast"]["returns_at"] == cache.clock.time() + 5 * 3600


async def test_the_queue_gives_each_client_its_turn() -> None:
    waiting = FairQueue()
    order: list[str] = []

    async def client(name: str, number: int) -> None:
        assert await waiting.wait(name, Priority.ORDINARY, 10)
        order.append(f"{name}{number}")

    async with asyncio.TaskGroup() as clients:
        for name, number in [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("c", 1), ("c", 2)]:
            clients.create_task(client(name, number))
        await eventually(lambda: len(waiting) == 6)
        while waiting.release(lambda _: True):
            pass

    assert order == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert len(waiting) == 0


async def test_the_queue_passes_over_those_who_may_not_go() -> None:
    waiting = FairQueue()
    places = [
        asyncio.create_task(waiting.wait("a", Priority.UNIMPORTANT, 0.1)),
        asyncio.create_task(waiting.wait("b", Priority.IMPORTANT, 10)),
    ]
    await eventually(lambda: len(waiting) == 2)

    assert waiting.release(lambda priority: priority is Priority.IMPORTANT)
    assert not waiting.release(lambda priority: priority is Priority.IMPORTANT)

    assert await asyncio.gather(*places) == [False, True]


@pytest.mark.parametrize(("most", "most_per_client", "refused"), [(3, 10, "c"), (10, 2, "a")])
async def test_the_queue_is_bounded_and_so_is_each_client_in_it(
    monkeypatch: pytest.MonkeyPatch, most: int, most_per_client: int, refused: str
) -> None:
    monkeypatch.setattr(queue, "MAX_WAITING", most)
    monkeypatch.setattr(queue, "MAX_WAITING_PER_CLIENT", most_per_client)
    waiting = FairQueue()
    places = [asyncio.create_task(waiting.wait(name, Priority.ORDINARY, 3600)) for name in "aab"]
    await eventually(lambda: len(waiting) == 3)

    async with asyncio.timeout(20):
        assert await waiting.wait(refused, Priority.ORDINARY, 3600) is False

    while waiting.release(lambda _: True):
        pass
    assert await asyncio.gather(*places) == [True] * 3
    assert len(waiting) == 0


async def test_who_leaves_the_queue_leaves_nothing_behind() -> None:
    waiting = FairQueue()
    place = asyncio.create_task(waiting.wait("a", Priority.ORDINARY, 10))
    await eventually(lambda: len(waiting) == 1)

    place.cancel()
    await asyncio.wait([place])

    assert len(waiting) == 0
    assert not waiting.release(lambda _: True)


async def test_stopping_does_not_wait_for_those_who_wait(tmp_path: Path, hub: FakeHub) -> None:
    hub.add_image(APP, "cold", [b"cold"])
    server = ServerOptions(listen=ANY_PORT, shutdown_timeout=0.1)
    async with governed(hub, tmp_path, server, wait=60.0) as cache:
        hub.set_remaining(0)
        hub.retry_after = 50
        await cache.get_manifest(APP, "cold")
        waiting = asyncio.create_task(cache.get_manifest(APP, "cold"))
        await eventually(lambda: cache.app.quotas.governor.waiting(account(cache)) == 1)
        governor = cache.app.quotas.governor

        async with asyncio.timeout(20):
            await cache.stop()
            await asyncio.wait([waiting])

        assert governor.waiting(account(cache)) == 0
        await cache.start()
    waiting.exception()


# What it says


async def test_it_explains_what_a_pull_would_do(tmp_path: Path, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    async with governed(hub, tmp_path, unimportant=("acme/*",), wait=0.0) as cache:
        unknown = await api(cache, f"/api/explain/{APP}")
        await cache.get_manifest(APP, "latest")
        fresh = await api(cache, f"/api/explain/{APP}:latest")
        cache.clock.advance(7 * WINDOW)
        stale = await api(cache, f"/api/explain/{APP}:latest")
        await spend_to(cache, hub, 10)
        cache.clock.advance(7 * WINDOW)
        tight = await api(cache, f"/api/explain/{APP}:latest")
        cold = await api(cache, f"/api/explain/{APP}:cold")
        digest = await api(cache, f"/api/explain/{APP}@{image.digest}")
        hub.reset_counts()

    def said(document: dict[str, Any]) -> tuple[Any, ...]:
        keys = ("admitted", "freshness", "asks_upstream", "counted_pull", "governor", "level")
        return tuple(document[key] for key in keys)

    assert said(unknown) == (None, "miss", True, "yes", "pass", "plenty")
    assert said(fresh) == (True, "fresh", False, "no", "pass", "plenty")
    assert said(stale) == (True, "stale", True, "if-changed", "pass", "plenty")
    assert said(tight) == (True, "stale", True, "if-changed", "save", "tight")
    assert said(cold) == (True, "miss", True, "yes", "refuse", "tight")
    assert said(digest)[1:4] == ("immutable", False, "no")
    assert fresh["held"]["digest"] == image.digest and tight["stretched"] == 6.0
    assert tight["lines"][-1] == "docker.io: the quota is tight, and this repository is unimportant"
    assert hub.requests == []


@pytest.mark.parametrize(("name", "status"), [("UPPER", 400), ("quay.io/acme/app", 404), ("app:bad tag", 400)])
async def test_what_cannot_be_explained_is_said(cache: CacheRig, name: str, status: int) -> None:
    document = await api(cache, f"/api/explain/{name}")

    assert document["status"] == status and document["error"]
