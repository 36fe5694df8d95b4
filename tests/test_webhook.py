"""Alerts reach a webhook, once: while the cache runs, when its settings change, when it ends and starts again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from proxy.app.facts import gather_facts
from proxy.config import Secret
from proxy.policy.alerts.board import MOST
from proxy.policy.breaker import FAILURES
from proxy.webhook import keeper, messages
from proxy.webhook import receiver as receivers
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.webhook_rig import (
    BAD,
    Receiver,
    answer,
    by_hand,
    cache_of,
    find_bad_content,
    hang,
    look,
    receiver,
    receiving,
    told,
    watched,
)

__all__ = ["by_hand", "receiver", "watched"]  # Fixtures: used by their names.


HOUR = 3600.0
APP = "acme/app"


async def reload(cache: CacheRig, **changes: Any) -> None:
    """Other settings of the webhook."""
    config = cache.app.config
    await cache.app.reload(replace(config, webhook=replace(config.webhook, **changes)))


# What is told


async def test_an_alert_is_told_once_and_once_that_it_is_over(watched: CacheRig, receiver: Receiver) -> None:
    await look(watched)
    assert receiver.alerts == []
    find_bad_content(watched)
    for _ in range(5):
        await look(watched, after=5)
    assert receiver.alerts == [(BAD, "firing")]

    for _ in range(3):
        await look(watched, after=HOUR)
    assert receiver.alerts == [(BAD, "firing"), (BAD, "resolved")]
    assert await told(watched) == {"delivered": 2, "failed": 0, "dropped": 0}


async def test_the_cache_looks_by_itself(
    hub: FakeHub, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LOOK_SECONDS", 0.01)
    async with cache_of(hub, tmp_path, receiver) as cache:
        find_bad_content(cache)
        await eventually(lambda: receiver.alerts == [(BAD, "firing")])


async def test_what_is_seen_of_upstreams_is_told(watched: CacheRig, hub: FakeHub, receiver: Receiver) -> None:
    hub.add_image(APP, "latest")
    await watched.get_manifest(APP, "latest")
    hub.pat = "another"
    hub.expire_tokens()
    hub.untag(APP, "latest")
    watched.clock.advance(301)
    await watched.get_manifest(APP, "latest")
    await look(watched)
    await look(watched, after=60)
    assert sorted(receiver.alerts) == [
        ("ImageVanishedUpstream", "firing"),
        ("UpstreamRefusesCredentials", "firing"),
    ]
    assert receiver.messages[-1]["alerts"][-1]["labels"]["upstream"] == "docker.io"


async def test_an_exhausted_quota_and_the_request_limit_are_told(
    watched: CacheRig, hub: FakeHub, receiver: Receiver
) -> None:
    hub.rate_limit = (1, 21600)
    hub.add_image(APP, "latest")
    await watched.get_manifest(APP, "latest")
    hub.abuse_limit()
    await watched.get_manifest(APP, "other")
    await look(watched)
    await look(watched, after=60)
    assert sorted(receiver.alerts) == [("PullQuotaExhausted", "firing"), ("UpstreamRequestLimitReached", "firing")]


async def test_what_is_looked_at_is_what_metrics_say(watched: CacheRig, hub: FakeHub) -> None:
    app = watched.app
    hub.add_image(APP, "latest")
    await watched.get_manifest(APP, "latest")
    await watched.get_manifest(APP, "latest")
    for reason in ("locked", "no-room", "disk"):
        app.metrics.not_stored(reason)
    facts = gather_facts(app.generation, app.report, app.metrics)
    assert (facts.hits["manifest"], facts.misses["manifest"], facts.requests["manifest"]) == (1, 1, 2)
    assert facts.not_stored == 2
    (upstream,) = facts.upstreams
    assert (upstream.account, upstream.limit, upstream.remaining) == ("alice", 100, 99)
    assert not (upstream.credentials_rejected or upstream.breaker_open or upstream.bypass_suspected)

    await hub.gone()
    for number in range(FAILURES):
        await watched.get_manifest(APP, f"other-{number}")
    (upstream,) = gather_facts(app.generation, app.report, app.metrics).upstreams
    assert upstream.breaker_open


async def test_alerts_that_are_ignored_are_not_told(
    hub: FakeHub, tmp_path: Path, receiver: Receiver, by_hand: None
) -> None:
    async with cache_of(hub, tmp_path, receiver, ignore=(BAD,)) as cache:
        find_bad_content(cache)
        await look(cache)
        assert receiver.alerts == []


async def test_what_stands_is_told_again_after_a_while(
    hub: FakeHub, tmp_path: Path, receiver: Receiver, by_hand: None
) -> None:
    async with cache_of(hub, tmp_path, receiver, repeat=600.0) as cache:
        find_bad_content(cache)
        await look(cache)
        await look(cache, after=599)
        assert len(receiver.alerts) == 1
        await look(cache, after=1)
        assert receiver.alerts == [(BAD, "firing")] * 2


async def test_a_look_tells_an_alert_once_however_often_it_is_to_be_repeated(
    hub: FakeHub, tmp_path: Path, receiver: Receiver, by_hand: None
) -> None:
    async with cache_of(hub, tmp_path, receiver, repeat=0.001) as cache:

        async def slowly(request: web.Request) -> web.Response:
            cache.clock.advance(1)
            return web.Response()

        receiver.answers.extend([slowly] * 3)
        find_bad_content(cache)
        await look(cache)
        assert receiver.alerts == [(BAD, "firing")]
        receiver.answers.clear()


async def test_more_alerts_than_a_message_holds_come_in_several(watched: CacheRig, receiver: Receiver) -> None:
    kinds = messages.MOST + 1
    for number in range(kinds):
        watched.app.metrics.integrity_failed(f"kind {number}")
    await look(watched)
    assert [len(message["alerts"]) for message in receiver.messages] == [messages.MOST, 1]
    assert await told(watched) == {"delivered": kinds, "failed": 0, "dropped": 0}


async def test_what_there_is_no_room_for_is_dropped_and_counted(watched: CacheRig, receiver: Receiver) -> None:
    receiver.answers.append(answer(500))
    for number in range(MOST + 3):
        watched.app.metrics.integrity_failed(f"kind {number}")
    await look(watched)
    assert await told(watched) == {"delivered": 0, "failed": 0, "dropped": 3}


# Reloads


async def test_another_url_counts_from_then_on_and_hears_what_the_last_one_refused(
    watched: CacheRig, receiver: Receiver
) -> None:
    receiver.answers.append(answer(410, "channel_is_archived"))
    find_bad_content(watched)
    await look(watched)
    async with receiving() as other:
        await reload(watched, url=Secret(other.url))
        await look(watched)
        assert other.alerts == [(BAD, "firing")]
        await look(watched, after=HOUR)
        assert other.alerts[1:] == [(BAD, "resolved")]
    assert len(receiver.requests) == 1


async def test_a_reload_tries_at_once_what_waits(watched: CacheRig, receiver: Receiver) -> None:
    receiver.answers.append(answer(503, Retry_After="3000"))
    find_bad_content(watched)
    await look(watched)
    await look(watched)
    assert len(receiver.requests) == 1
    await reload(watched)
    await look(watched)
    assert receiver.alerts == [(BAD, "firing")] * 2


async def test_nothing_is_told_while_there_is_no_url_and_what_was_counted_meanwhile_is_old(
    watched: CacheRig, receiver: Receiver
) -> None:
    url = watched.app.config.webhook.url
    await reload(watched, url=None)
    find_bad_content(watched)
    await look(watched)
    await reload(watched, url=url)
    await look(watched)
    assert receiver.alerts == []
    find_bad_content(watched)
    await look(watched)
    assert receiver.alerts == [(BAD, "firing")]


# Ends and starts


async def test_what_is_due_is_told_at_the_end_once_more(watched: CacheRig, receiver: Receiver) -> None:
    receiver.answers.append(answer(500))
    find_bad_content(watched)
    await look(watched)
    await watched.stop()
    assert receiver.alerts == [(BAD, "firing")] * 2


async def test_a_receiver_that_hangs_holds_up_no_end_and_the_next_process_tells_it(
    hub: FakeHub, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(keeper, "LAST_SECONDS", 0.1)
    monkeypatch.setattr(receivers, "SEND_SECONDS", 3600.0)
    receiver.answers.append(hang)
    async with cache_of(hub, tmp_path, receiver) as cache:
        find_bad_content(cache)
        await eventually(lambda: receiver.requests)
        async with asyncio.timeout(20):
            await cache.stop()
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "webhook"]

        await cache.start()
        find_bad_content(cache)
        await eventually(lambda: receiver.alerts == [(BAD, "firing")] * 2)


async def test_a_restart_tells_nothing_again_but_the_end(watched: CacheRig, receiver: Receiver) -> None:
    find_bad_content(watched)
    await look(watched)
    started_at = receiver.messages[0]["alerts"][0]["startsAt"]
    await watched.restart()
    await look(watched, after=HOUR - 1)
    assert len(receiver.alerts) == 1
    await look(watched, after=1)
    assert receiver.alerts[1:] == [(BAD, "resolved")]
    assert receiver.messages[1]["alerts"][0]["startsAt"] == started_at


async def test_of_two_processes_on_one_folder_one_tells(
    watched: CacheRig, receiver: Receiver, hub: FakeHub, tmp_path: Path
) -> None:
    async with cache_of(hub, tmp_path, receiver) as second:
        find_bad_content(watched)
        find_bad_content(second)
        await look(watched)
        await look(second)
        assert receiver.alerts == [(BAD, "firing")]
        await watched.stop()
        await eventually(lambda: second.app.store.keeper_lock.held)
        await look(second)
        assert receiver.alerts == [(BAD, "firing")]
        await look(second, after=HOUR)
        assert receiver.alerts[1:] == [(BAD, "resolved")]
