"""The wall clock is stepped by days, and upstream's is wrong: nothing is fresh, missing or closed for ever."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from proxy.policy.negatives import NEGATIVE_SECONDS
from proxy.policy.quota import MAX_PAUSE_SECONDS
from tests.asked import heads
from tests.cache_rig import CacheRig, Clock
from tests.fake_hub import Answer, FakeHub
from tests.fake_hub.content import Bytes

APP = "acme/app"
WINDOW = 300.0
DAYS = [-3 * 86400.0, 3 * 86400.0]


class SteppedClock(Clock):
    """A wall clock that can be set, beside one that only runs."""

    stepped = 0.0

    def time(self) -> float:
        return self.now + self.stepped


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
async def cache(hub: FakeHub, tmp_path: Path, clock: SteppedClock) -> AsyncIterator[CacheRig]:
    async with CacheRig(hub.url, tmp_path / "cache", clock=clock) as running:
        yield running


@pytest.mark.parametrize("days", DAYS)
async def test_a_tag_is_asked_about_once_after_a_step_and_is_fresh_again(
    cache: CacheRig, hub: FakeHub, clock: SteppedClock, days: float
) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    hub.reset_counts()

    clock.stepped = days
    replies = [await cache.get_manifest(APP, "latest") for _ in range(3)]
    asked = heads(hub, "latest")
    clock.advance(WINDOW)
    replies.append(await cache.get_manifest(APP, "latest"))

    assert {reply.body for reply in replies} == {image.body}
    assert all(int(reply.headers.get("Age", "0")) >= 0 for reply in replies)
    assert (asked, heads(hub, "latest")) == (1, 2)


async def test_what_was_confirmed_while_the_clock_was_ahead_is_not_fresh_until_then(
    cache: CacheRig, hub: FakeHub, clock: SteppedClock
) -> None:
    clock.stepped = 3 * 86400
    hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    moved = hub.add_image(APP, "latest", [b"newer"])

    clock.stepped = 0
    reply = await cache.get_manifest(APP, "latest")

    assert (reply.status, reply.body) == (200, moved.body)


@pytest.mark.parametrize("days", DAYS)
async def test_the_age_of_a_stale_answer_is_never_below_zero(
    cache: CacheRig, hub: FakeHub, clock: SteppedClock, days: float
) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    await hub.gone()
    clock.stepped = days

    reply = await cache.get_manifest(APP, "latest")

    assert (reply.status, reply.body, "Warning" in reply.headers) == (200, image.body, True)
    assert reply.headers["Age"] == str(max(0, int(days)))


@pytest.mark.parametrize("days", DAYS)
async def test_what_was_missing_is_not_missing_for_ever(
    cache: CacheRig, hub: FakeHub, clock: SteppedClock, days: float
) -> None:
    hub.add_image(APP, "other")
    missing = await cache.get_manifest(APP, "latest")
    image = hub.add_image(APP, "latest")
    clock.stepped = days

    remembered = await cache.get_manifest(APP, "latest")
    clock.advance(NEGATIVE_SECONDS)
    found = await cache.get_manifest(APP, "latest")

    assert (missing.status, remembered.status) == (404, 404), "remembered by a clock that nobody sets"
    assert (found.status, found.body) == (200, image.body)


@pytest.mark.parametrize("days", DAYS)
async def test_whether_a_repository_is_public_is_asked_again_after_a_step(
    cache: CacheRig, hub: FakeHub, clock: SteppedClock, days: float
) -> None:
    image = hub.add_image(APP, "latest")
    await cache.get_manifest(APP, "latest")
    hub.make_private(APP)
    hub.expire_tokens()
    clock.stepped = days

    assert (await cache.get_manifest(APP, image.digest)).status == 403
    hub.repositories[APP].private = False
    clock.stepped = 0
    assert (await cache.get_manifest(APP, image.digest)).status == 200


@pytest.mark.parametrize("days", DAYS)
async def test_a_429_with_a_date_of_a_clock_that_is_wrong_closes_nothing_for_ever(
    cache: CacheRig, hub: FakeHub, clock: SteppedClock, days: float
) -> None:
    hub.add_image(APP, "latest")
    date = format_datetime(datetime.fromtimestamp(clock.time() + days, UTC), usegmt=True)
    hub.fail("registry", 429, retry_after=date)
    refused = await cache.get_manifest(APP, "latest")
    hub.heal()
    most = 1.5 * MAX_PAUSE_SECONDS["requests"]  # It may open a little late.
    clock.advance(most)

    assert (refused.status, int(refused.headers["Retry-After"]) <= most) == (429, True)
    assert (await cache.get_manifest(APP, "latest")).status == 200


@pytest.mark.parametrize(
    "nonsense",
    [
        {"issued_at": "1970-01-01T00:00:00Z"},
        {"issued_at": "9999-12-31T23:59:59Z"},
        {"issued_at": "yesterday"},
        {"issued_at": -1, "expires_in": -1},
        {"expires_in": 0},
        {"expires_in": 10**400},
        {"expires_in": float("nan")},
        {"expires_in": float("inf")},
        {"expires_in": "300"},
        {"expires_in": [300]},
        {"expires_in": None},
    ],
    ids=lambda nonsense: str(nonsense)[:40],
)
async def test_a_token_with_nonsense_for_times_is_used_and_not_for_ever(
    cache: CacheRig, hub: FakeHub, clock: SteppedClock, nonsense: dict[str, Any]
) -> None:
    image = hub.add_image(APP, "latest")

    def change(answer: Answer) -> None:
        document = json.loads(answer.content.read(*answer.extent()))
        answer.content = Bytes(json.dumps(document | nonsense).encode())

    hub.change("token", change)

    assert (await cache.get_manifest(APP, "latest")).body == image.body
    hub.expire_tokens()
    clock.advance(2 * 86400)
    exchanges = hub.token_count()
    assert (await cache.get_manifest(APP, "latest")).body == image.body
    assert hub.token_count() > exchanges
