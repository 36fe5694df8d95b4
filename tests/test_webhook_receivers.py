"""Whatever a receiver does, alerts arrive or are given up, nobody waits for it, and its URL comes out by no door."""

from __future__ import annotations

import asyncio
import logging
import traceback
from pathlib import Path

import pytest

from proxy.clock import SystemClock
from proxy.config import Secret, WebhookOptions, describe
from proxy.policy.alerts.board import AGAIN_SECONDS, ATTEMPTS
from proxy.webhook import keeper
from proxy.webhook import receiver as receivers
from proxy.webhook.receiver import Undelivered, send
from tests.authority import DAY, Authority
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.quota_rig import api
from tests.webhook_rig import (
    BAD,
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

HOUR = 3600.0
APP = "acme/app"


# What receivers do


PASSING: dict[str, Answer] = {
    "500": answer(500),
    "503": answer(503, Retry_After="1"),
    "429": answer(429),
    "408": answer(408),
    "breaks": close,
    "hangs": hang,
}


@pytest.mark.parametrize("trouble", PASSING.values(), ids=PASSING)
async def test_what_did_not_arrive_is_told_later(
    watched: CacheRig, receiver: Receiver, trouble: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receivers, "SEND_SECONDS", 0.2 if trouble is hang else 10.0)
    receiver.answers.append(trouble)
    find_bad_content(watched)
    await look(watched)
    before = len(receiver.requests)  # It may be that one which hangs got none.
    await look(watched, after=4)
    assert len(receiver.requests) == before
    receiver.answers.clear()
    monkeypatch.setattr(receivers, "SEND_SECONDS", 10.0)
    await look(watched, after=3)
    assert receiver.alerts == [(BAD, "firing")] * (before + 1)
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
    "refused with an echo": answer(403, f"no hook {SECRET}"),
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
