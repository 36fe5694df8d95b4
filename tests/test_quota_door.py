"""The quota by the door: what upstream says becomes the right gauge or none, in /metrics, /api/quota and the books."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from tests.asked import gets
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub
from tests.quota_rig import APP, api, events, governed, hub_of

LIMIT = "pullthrough_ratelimit_limit"
LEFT = "pullthrough_ratelimit_remaining"
UUID = "a645ce4d-4328-42eb-8241-1624241605ef"


def say(hub: FakeHub, **headers: str | None) -> None:
    """Have every manifest answered with these headers for the quota, and without those that are None."""

    def change(answer: Any) -> None:
        for name, value in headers.items():
            answer.headers.popall(name.replace("_", "-"), None)
            if value is not None:
                answer.headers.update(CIMultiDict({name.replace("_", "-"): value}))

    hub.heal("manifest")
    hub.change("manifest", change)


@pytest.mark.parametrize(
    ("limit", "remaining", "source", "kind", "gauges"),
    [
        ("100;w=21600", "90;w=21600", UUID, "limited", (100, 90)),
        ("100;w=21600", "0;w=21600", UUID, "limited", (100, 0)),
        ("100, 100;w=21600", "90;w=21600", UUID, "limited", (100, 90)),
        (None, None, UUID, "unlimited", (None, None)),
        ("", "", UUID, "unlimited", (None, None)),
        ("", "", "", "unknown", (None, None)),
        ("unlimited", "many", None, "unknown", (None, None)),
        (None, None, None, "unknown", (None, None)),
    ],
)
async def test_what_upstream_says_gives_the_right_gauge_or_none(
    cache: CacheRig,
    hub: FakeHub,
    limit: str | None,
    remaining: str | None,
    source: str | None,
    kind: str,
    gauges: tuple[int | None, int | None],
) -> None:
    hub.add_image(APP, "latest")
    say(hub, ratelimit_limit=limit, ratelimit_remaining=remaining, docker_ratelimit_source=source)

    await cache.get_manifest(APP, "latest")

    shown = await hub_of(cache)
    assert (await cache.metric(LIMIT), await cache.metric(LEFT)) == gauges
    assert (shown["kind"], shown["limit"], shown["remaining"]) == (kind, *gauges)


async def test_a_counter_that_moves_in_steps_is_neither_a_rate_nor_a_leak(cache: CacheRig, hub: FakeHub) -> None:
    for number in range(20):
        hub.add_image(APP, f"v{number}", [b"%d" % number])
        say(hub, ratelimit_limit="100;w=21600", ratelimit_remaining=f"{100 - number // 10 * 10};w=21600")
        await cache.get_manifest(APP, f"v{number}")
        cache.clock.advance(60)

    shown = await hub_of(cache)
    assert shown["forecast"]["rate_per_hour"] == pytest.approx(60, rel=0.1)
    assert (shown["unexplained"], shown["bypass_suspected"]) == (0, False)


async def test_another_account_is_a_new_beginning(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    say(hub, ratelimit_limit="100;w=21600", ratelimit_remaining="100;w=21600", docker_ratelimit_source="one")
    await cache.get_manifest(APP, "latest")
    say(hub, ratelimit_limit="200;w=21600", ratelimit_remaining="20;w=21600", docker_ratelimit_source="another")
    cache.clock.advance(400)

    await cache.get_manifest(APP, "latest")

    shown = await hub_of(cache)
    assert (shown["limit"], shown["remaining"], shown["source"]) == (200, 20, "another")
    assert (shown["unexplained"], shown["bypass_suspected"]) == (0, False)


class SteppedClock:
    """A wall clock that may be stepped, beside a monotonic one that is not."""

    def __init__(self, cache: CacheRig) -> None:
        self._clock, self.step = cache.clock, 0.0

    def time(self) -> float:
        return self._clock.now + self.step

    def monotonic(self) -> float:
        return self._clock.now


@pytest.mark.parametrize("step", [-86400.0, 86400.0])
async def test_a_stepped_clock_makes_no_nonsense(cache: CacheRig, hub: FakeHub, step: float) -> None:
    await cache.stop()
    clock = SteppedClock(cache)
    cache.clock = clock  # type: ignore[assignment]
    await cache.start()
    for number in range(5):
        hub.add_image(APP, f"v{number}", [b"%d" % number])
        await cache.get_manifest(APP, f"v{number}")
        clock.step += step

    for restarted in (False, True):
        if restarted:
            await cache.restart()
        shown = await hub_of(cache)
        now = (await api(cache, "/api/quota"))["now"]
        assert (shown["unexplained"], shown["bypass_suspected"], shown["level"]) == (0, False, "plenty")
        assert all(at <= now for at, _ in shown["history"])
        assert shown["observed_at"] is None or shown["observed_at"] <= now
        assert shown["forecast"]["state"] in ("too-little", "steady", "unknown")


async def test_somebody_else_who_uses_the_account_is_noticed_and_told_once(
    cache: CacheRig, hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    for left in (70, 60, 50):
        hub.set_remaining(left)
        cache.clock.advance(400)
        await cache.get_manifest(APP, "latest")
        cache.app.quotas.watch.look()

    shown = await hub_of(cache)
    assert (shown["unexplained"], shown["bypass_suspected"]) == (49, True)
    assert await cache.metric("pullthrough_quota_bypass_suspected") == 1
    assert await cache.metric("pullthrough_quota_unexplained_pulls") == 49
    assert sum("not made by this cache" in record.message for record in caplog.records) == 1
    assert [kind for kind, _ in await events(cache)].count("bypass") == 1
    assert (await cache.status())["upstreams"][0]["budget"]["bypass_suspected"] is True


async def test_our_own_pulls_alarm_nobody(cache: CacheRig, hub: FakeHub) -> None:
    for number in range(30):
        hub.add_image(APP, f"v{number}", [b"%d" % number])
        await cache.get_manifest(APP, f"v{number}")

    assert hub.counted_pulls == 30
    assert (await hub_of(cache))["unexplained"] == 0
    assert await cache.metric("pullthrough_quota_bypass_suspected") == 0


async def test_the_books_survive_a_restart(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest", **{"User-Agent": "docker/29.0 go/go1.25"})
    hub.set_remaining(40)
    cache.clock.advance(400)
    await cache.get_manifest(APP, "latest")
    before = await hub_of(cache)

    await cache.restart()
    await hub.gone()

    after = await hub_of(cache)
    for name in ("kind", "limit", "remaining", "source", "history", "pulls_last_hour", "unexplained", "spenders"):
        assert after[name] == before[name], name
    assert (await cache.metric(LIMIT), await cache.metric(LEFT)) == (100, 40)
    assert after["saved"]["ever"]["pulls"] == before["saved"]["ever"]["pulls"] == 1
    assert after["saved"]["since_start"]["pulls"] == 0


@pytest.mark.parametrize("retry_after", [None, 600])
async def test_a_closed_gate_survives_a_restart(cache: CacheRig, hub: FakeHub, retry_after: int | None) -> None:
    hub.add_image(APP, "latest")
    hub.set_remaining(0)
    hub.retry_after = retry_after
    assert (await cache.get_manifest(APP, "latest")).status == 429
    asked = gets(hub)

    await cache.restart()
    cache.clock.advance(60)

    assert (await cache.get_manifest(APP, "latest")).status == 429
    assert gets(hub) == asked
    assert (await hub_of(cache))["level"] == "exhausted"


async def test_what_an_earlier_process_has_said_is_not_said_again(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    hub.set_remaining(8)
    cache.clock.advance(400)
    await cache.get_manifest(APP, "latest")
    told = await events(cache)

    await cache.restart()

    assert sorted(kind for kind, _ in told) == ["bypass", "level"]
    assert await events(cache) == told


async def test_why_a_pull_was_needed_is_written_down(cache: CacheRig, hub: FakeHub) -> None:
    first = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest", **{"User-Agent": "docker/29.0 go/go1.25"})
    second = hub.add_image(APP, "latest", [b"second"])
    cache.clock.advance(400)
    await cache.head_manifest(APP, "latest")
    await cache.get_manifest(APP, second.digest, **{"User-Agent": "libpod/4.3.1"})
    third = hub.add_image(APP, None, [b"third"])
    await cache.get_manifest(APP, third.digest)

    spends = cache.app.generation.upstreams["docker.io"].account.ledger.spends(0.0)
    assert [(each.reference, each.purpose.why, each.purpose.asker.agent) for each in spends] == [
        (first.digest, "new", "docker"),
        (second.digest, "changed", "podman"),
        (third.digest, "digest", "other"),
    ]
    assert {each.purpose.asker.address for each in spends} == {"127.0.0.1"}


async def test_a_pull_of_what_is_not_held_any_more_says_so(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    await cache.stop()
    for path in (cache.directory / "blobs").glob("*/*/*"):
        path.unlink()
    await cache.start()

    await cache.get_manifest(APP, "latest")

    spends = cache.app.generation.upstreams["docker.io"].account.ledger.spends(0.0)
    assert [(each.reference, each.purpose.why) for each in spends] == [(image.digest, "new"), (image.digest, "gone")]


async def test_the_probe_asks_when_nothing_was_heard_and_costs_nothing(tmp_path: Path, hub: FakeHub) -> None:
    hub.add_image("ratelimitpreview/test", "latest")
    async with governed(hub, tmp_path, probe=300.0) as cache:
        prober = cache.app.prober
        await prober.look()
        assert hub.requests == []  # Not at once: upstream may be down, and clients may come first.

        for _ in range(4):
            cache.clock.advance(400)
            await prober.look()
            await prober.look()

        assert hub.count("HEAD", "manifest", repository="ratelimitpreview/test") == 4
        assert hub.count("GET", "manifest") == 0
        assert await cache.metric(LEFT) == 100
        assert (await hub_of(cache))["observed_by"] == "probe"


async def test_the_probe_is_quiet_while_clients_are_heard_of_or_upstream_cannot_be_asked(
    tmp_path: Path, hub: FakeHub
) -> None:
    hub.add_image("ratelimitpreview/test", "latest")
    hub.add_image(APP, "latest")
    async with governed(hub, tmp_path, probe=300.0) as cache:
        for _ in range(3):
            cache.clock.advance(301)
            await cache.head_manifest(APP, "latest")
            await cache.app.prober.look()
        assert hub.count("HEAD", "manifest", repository="ratelimitpreview/test") == 0

        limited = hub.abuse_limit(retry_after=900)
        cache.clock.advance(400)
        await cache.app.prober.look()
        asked = limited.used
        cache.clock.advance(400)
        await cache.app.prober.look()
        assert limited.used == asked > 0


async def test_a_probe_that_could_not_be_sent_is_sent_as_soon_as_it_can(tmp_path: Path, hub: FakeHub) -> None:
    hub.add_image("ratelimitpreview/test", "latest")
    hub.add_image(APP, "latest")
    async with governed(hub, tmp_path, probe=3600.0) as cache:
        cache.clock.advance(4000)
        hub.abuse_limit(retry_after=900)
        await cache.head_manifest(APP, "latest")
        await cache.app.prober.look()
        hub.heal()
        hub.reset_counts()

        cache.clock.advance(1200)
        await cache.app.prober.look()

    assert hub.count("HEAD", "manifest", repository="ratelimitpreview/test") == 1


async def test_no_probe_is_sent_if_nobody_wants_it(tmp_path: Path, hub: FakeHub) -> None:
    async with governed(hub, tmp_path, probe=0.0) as cache:
        cache.clock.advance(10_000)
        await cache.app.prober.look()

    assert hub.requests == []
