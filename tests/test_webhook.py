"""Alerts reach a webhook, once, whatever it does with them; its URL comes out by no door."""

from __future__ import annotations

import asyncio
import logging
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.app.facts import gather_facts
from proxy.clock import SystemClock
from proxy.config import Secret, WebhookOptions, describe
from proxy.policy.alerts.board import AGAIN_SECONDS, ATTEMPTS, MOST
from proxy.policy.breaker import FAILURES
from proxy.webhook import keeper, messages
from proxy.webhook import receiver as receivers
from proxy.webhook.receiver import Undelivered, send
from tests.authority import DAY, Authority
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.quota_rig import api
from tests.webhook_rig import (
    SECRET,
    Answer,
    Receiver,
    answer,
    by_hand,
    cache_of,
    close,
    find_bad_content,
    hang,
    look,
    receiver,
    receiving,
    told,
    watched,
)

__all__ = ["by_hand", "receiver", "watched"]  # Fixtures: used by their names.

BAD = "PullthroughIntegrityFailure"
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


# What receivers do


@pytest.mark.parametrize(
    "trouble", [answer(500), answer(503, Retry_After="1"), answer(429), answer(408), close, hang], ids=str
)
async def test_what_did_not_arrive_is_told_later(
    watched: CacheRig, receiver: Receiver, trouble: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receivers, "SEND_SECONDS", 0.1 if trouble is hang else 10.0)
    receiver.answers.append(trouble)
    find_bad_content(watched)
    await look(watched)
    await look(watched, after=4)
    assert len(receiver.requests) == 1
    monkeypatch.setattr(receivers, "SEND_SECONDS", 10.0)
    await look(watched, after=4)
    await look(watched, after=400)
    assert receiver.alerts == [(BAD, "firing")] * 2
    assert await told(watched) == {"delivered": 1, "failed": 0, "dropped": 0}


async def test_a_receiver_that_hangs_holds_up_no_pull(
    hub: FakeHub, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(keeper, "LAST_SECONDS", 0.05)
    hub.add_image(APP, "latest")
    receiver.answers.append(hang)
    async with cache_of(hub, tmp_path, receiver) as cache:
        find_bad_content(cache)
        await eventually(lambda: receiver.requests)
        assert (await cache.get_manifest(APP, "latest")).status == 200
        assert len(receiver.requests) == 1


async def test_a_receiver_is_left_alone_for_as_long_as_it_wants(watched: CacheRig, receiver: Receiver) -> None:
    receiver.answers.append(answer(429, Retry_After="600"))
    find_bad_content(watched)
    await look(watched)
    await look(watched, after=599)
    assert len(receiver.requests) == 1
    await look(watched, after=152)
    assert len(receiver.requests) == 2


async def test_no_receiver_has_itself_left_alone_for_ever(watched: CacheRig, receiver: Receiver) -> None:
    receiver.answers.append(answer(503, Retry_After="99999999"))
    find_bad_content(watched)
    await look(watched)
    await look(watched, after=1.25 * HOUR + 1)
    assert receiver.alerts[1:] == [(BAD, "resolved")]


async def test_the_pauses_grow_and_in_the_end_it_is_given_up(watched: CacheRig, receiver: Receiver) -> None:
    receiver.answers.extend([answer(500)] * ATTEMPTS)
    find_bad_content(watched)
    await look(watched)
    for number, pause in enumerate([5, 10, 20, 40, 80, 160, 300], start=1):
        await look(watched, after=pause - 1)
        assert len(receiver.requests) == number
        await look(watched, after=pause / 4 + 1)
        assert len(receiver.requests) == number + 1
    assert await told(watched) == {"delivered": 0, "failed": 1, "dropped": 0}


async def test_a_receiver_that_refuses_is_asked_again_only_after_a_while(
    watched: CacheRig, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers.append(answer(404, "no_service"))
    find_bad_content(watched)
    await look(watched)
    await look(watched, after=AGAIN_SECONDS - 1)
    assert len(receiver.requests) == 1
    assert f"was not told of {BAD}: 127.0.0.1 answered 404 (no_service); 1 of them given up" in caplog.text
    await look(watched, after=1)
    assert len(receiver.requests) == 2
    assert await told(watched) == {"delivered": 1, "failed": 1, "dropped": 0}


async def test_a_redirect_is_not_followed(watched: CacheRig, receiver: Receiver) -> None:
    async with receiving() as elsewhere:
        receiver.answers.append(answer(307, Location=elsewhere.url))
        find_bad_content(watched)
        await look(watched)
        assert elsewhere.requests == []
    assert (await told(watched))["failed"] == 1


async def test_certificates_are_verified(tmp_path: Path) -> None:
    authority = await asyncio.to_thread(Authority)
    context = await asyncio.to_thread(authority.sign, tmp_path, "localhost", -DAY, DAY)
    async with receiving(context) as receiver:
        with pytest.raises(Undelivered, match="localhost: its certificate was refused"):
            await send(WebhookOptions(url=Secret(receiver.url)), b"{}", SystemClock())
        assert receiver.requests == []


async def test_the_proxy_of_the_environment_is_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver takes the proxy's place: what it gets names another host."""
    monkeypatch.setenv(
        "http_proxy", receiver.url.replace("127.0.0.1", "user:p%40ss@127.0.0.1").partition("/services")[0]
    )
    said = await send(WebhookOptions(url=Secret(f"http://hooks.example/{SECRET}")), b"{}", SystemClock())
    (request,) = receiver.requests
    assert said == "hooks.example answered 200"
    assert request.headers["Host"] == "hooks.example"
    assert request.headers["Proxy-Authorization"] == "Basic dXNlcjpwQHNz"


async def test_a_login_in_the_url_is_sent_as_one(receiver: Receiver) -> None:
    url = receiver.url.replace("//", "//user:p%40ss@")
    await send(WebhookOptions(url=Secret(url)), b"{}", SystemClock())
    assert receiver.requests[0].headers["Authorization"] == "Basic dXNlcjpwQHNz"
    assert receiver.requests[0].path_qs.endswith(SECRET)


# The secret


TROUBLES: dict[str, Answer] = {
    "taken": answer(200, f"thanks for {SECRET}"),
    "refused with an echo": answer(403, f"/services/{SECRET}"),
    "refused with a part of it": answer(400, "services"),
    "ill": answer(500, SECRET),
    "redirected": answer(302, Location=f"http://127.0.0.1/{SECRET}"),
    "broken": close,
    "hanging": hang,
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
async def test_the_url_comes_out_by_no_door(
    watched: CacheRig,
    receiver: Receiver,
    trouble: Answer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(receivers, "SEND_SECONDS", 0.2)
    receiver.answers.extend([trouble] * 2)
    find_bad_content(watched)
    await look(watched)
    seen = [str(await watched.metrics()), str(await watched.status()), str(await api(watched, "/api/quota"))]
    seen += [repr(watched.app.config), str(describe(watched.app.config)), repr(watched.app.webhook)]
    try:
        seen.append(await send(watched.app.config.webhook, b"{}", SystemClock()))
    except Undelivered as error:
        seen += [repr(error), "".join(traceback.format_exception(error))]
        assert error.__context__ is None
    seen.append(caplog.text)

    assert "127.0.0.1" in caplog.text
    assert [text for text in seen if SECRET in text or "/services" in text or "(services)" in text] == []


async def test_a_port_that_nobody_listens_on_is_told_without_the_url() -> None:
    async with receiving() as gone:
        url = gone.url
    with pytest.raises(Undelivered) as failed:
        await send(WebhookOptions(url=Secret(url)), b"{}", SystemClock())
    assert str(failed.value) == "127.0.0.1: no connection (Connection refused)"


async def test_the_file_is_read_whenever_something_is_sent(receiver: Receiver, tmp_path: Path) -> None:
    file, clock = tmp_path / "url", SystemClock()
    options = WebhookOptions(url_file=file)
    for content in ("", f"not a URL but {SECRET}", "\xff"):
        file.write_bytes(content.encode("latin-1"))
        with pytest.raises(Undelivered) as failed:
            await send(options, b"{}", clock)
        assert str(failed.value) == f"{file} cannot be read, or holds no URL"
    file.write_text(f"{receiver.url}\n")
    assert await send(options, b"{}", clock) == "127.0.0.1 answered 200"


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
    watched: CacheRig, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LAST_SECONDS", 0.1)
    receiver.answers.append(hang)
    find_bad_content(watched)
    await watched.stop()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "webhook"]
    assert len(receiver.requests) == 1

    await watched.start()
    find_bad_content(watched)
    await look(watched)
    assert receiver.alerts == [(BAD, "firing")] * 2


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
