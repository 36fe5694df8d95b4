"""The program's own log and the access log: one line each, that cannot be forged and hold no secret."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any, Literal

import pytest

from proxy.logs import configure_logging
from proxy.policy.quota.purpose import Asker
from proxy.pull.outcome import Outcome
from proxy.server import access_log
from proxy.server.access_log import AccessLog, Exchange
from tests.cache_rig import CacheRig
from tests.raw_http import raw_client

Style = Literal["text", "json"]
STYLES: list[Style] = ["text", "json"]
NOISE = b"GET /v2/ HTTP/1.1\r\nAuthorization Basic Y2xpZW50LXBhc3N3b3Jk\r\n\r\n"
log = logging.getLogger("proxy.test")


class Output:
    """What was written to stderr."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def text(self) -> str:
        """All since the last time."""
        return self._capture.readouterr().err


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Iterator[Output]:
    """The log is as it was before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    yield Output(capsys)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_names_time_level_and_room(output: Output) -> None:
    configure_logging("info", "text")
    log.warning("%s broke", "it")
    time, level, room, message = output.text().split(" ", 3)
    assert (len(time), time[-1], level, room, message) == (20, "Z", "WARNING", "proxy.test:", "it broke\n")


def test_a_json_line_has_the_same_fields(output: Output) -> None:
    configure_logging("info", "json")
    log.warning("%s broke", "it")
    (line,) = output.text().splitlines()
    found = json.loads(line)
    assert len(found.pop("time")) == 20
    assert found == {"level": "warning", "logger": "proxy.test", "message": "it broke"}


@pytest.mark.parametrize("style", STYLES)
def test_control_characters_cannot_forge_a_line(output: Output, style: Style) -> None:
    configure_logging("info", style)
    log.warning("refused: %s", "a\r\n2026-01-01T00:00:00Z INFO forged\x1b[2J\x00\x85\u2028b")
    (line,) = output.text().splitlines()
    assert not set("\x1b\x00") & set(line)


@pytest.mark.parametrize("style", STYLES)
def test_a_defect_is_logged_with_its_traceback(output: Output, style: Style) -> None:
    configure_logging("info", style)
    try:
        raise RuntimeError("oops")
    except RuntimeError:
        log.exception("it failed")
    written = output.text()
    assert "Traceback" in written and "oops" in written


def test_only_what_the_level_asks_for_is_written(output: Output) -> None:
    configure_logging("warning", "text")
    log.info("quiet")
    log.warning("loud")
    written = output.text()
    assert "loud" in written and "quiet" not in written


@pytest.mark.parametrize("style", STYLES)
async def test_what_is_no_http_is_one_line_without_what_was_sent(cache: CacheRig, output: Output, style: Style) -> None:
    configure_logging("debug", style)
    logging.getLogger("asyncio").setLevel(logging.INFO)
    async with raw_client(cache.url) as client:
        client.send(NOISE)
        assert b"400" in await client.rest()
    (line,) = output.text().splitlines()
    assert "a request that is no HTTP was refused: BadHttpMessage" in line
    assert "INFO" in line.upper()
    assert "Traceback" not in line and "Y2xpZW50" not in line


async def test_what_is_no_http_does_not_concern_those_who_asked_for_warnings(cache: CacheRig, output: Output) -> None:
    configure_logging("warning", "text")
    async with raw_client(cache.url) as client:
        client.send(NOISE)
        await client.rest()
    assert output.text() == ""


def exchange(**facts: Any) -> Exchange:
    """An answered request."""
    usual: dict[str, Any] = {"kind": "blob", "subject": "r d", "status": 200, "sent": 7}
    return Exchange(Asker("192.0.2.1"), "GET", 0.0, **usual | facts)


async def written(style: Style, *exchanges: Exchange) -> list[str]:
    """The lines of the access log, without their time."""
    stream = io.StringIO()
    writer = AccessLog(stream, style)
    for each in exchanges:
        writer.write(each, 0.0123)
    await writer.aclose()
    return stream.getvalue().splitlines()


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"outcome": Outcome("hit")}, "192.0.2.1 GET blob r d 200 7B 12.3ms [hit]"),
        (
            {"outcome": Outcome("miss", stored=True, counted=1)},
            "192.0.2.1 GET blob r d 200 7B 12.3ms [fwd=miss; stored] counted=1",
        ),
        (
            {"outcome": Outcome("miss"), "error": "UNAVAILABLE"},
            "192.0.2.1 GET blob r d 200 7B 12.3ms [fwd=miss] error=UNAVAILABLE",
        ),
        (
            {"subject": "-", "kind": "other", "status": 400, "error": "NAME_INVALID"},
            "192.0.2.1 GET other - 400 7B 12.3ms [-] error=NAME_INVALID",
        ),
        ({"outcome": Outcome("hit"), "aborted": True}, "192.0.2.1 GET blob r d 200 7B 12.3ms [hit] client-left"),
    ],
)
async def test_a_text_line_says_who_what_how_and_the_cost(facts: dict[str, Any], line: str) -> None:
    assert [each.partition(" ")[2] for each in await written("text", exchange(**facts))] == [line]


async def test_a_json_line_says_the_same() -> None:
    (line,) = await written("json", exchange(outcome=Outcome("miss", stored=True, counted=1)))
    found = json.loads(line)
    assert len(found.pop("time")) == 20
    assert found == {
        "peer": "192.0.2.1",
        "method": "GET",
        "kind": "blob",
        "subject": "r d",
        "status": 200,
        "bytes": 7,
        "seconds": 0.0123,
        "cache_status": "pullthrough; fwd=miss; stored",
        "counted": 1,
        "error": None,
        "client_left": False,
    }


class Slow(io.StringIO):
    """A stream that takes nothing before it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.let = threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.let.wait(5)
        return super().write(text)


async def test_no_line_is_lost_when_the_log_is_closed_while_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "_FLUSH_SECONDS", 0.0)
    stream = Slow()
    writer = AccessLog(stream, "text")
    writer.write(exchange(subject="first"), 0.0)
    await asyncio.to_thread(stream.reached.wait, 5)
    monkeypatch.setattr(access_log, "_FLUSH_SECONDS", 60.0)
    writer.write(exchange(subject="second"), 0.0)

    closing = asyncio.ensure_future(writer.aclose())
    await asyncio.sleep(0)
    stream.let.set()
    await closing

    assert [line.split(" ")[4] for line in stream.getvalue().splitlines()] == ["first", "second"]


async def test_a_log_that_nobody_reads_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "_MAX_LINES", 3)
    lines = await written("text", *(exchange(subject=str(number)) for number in range(5)))
    assert [line.split(" ")[4] for line in lines] == ["2", "3", "4"]


async def test_requests_are_answered_when_the_log_cannot_be_written(
    cache: CacheRig, caplog: pytest.LogCaptureFixture
) -> None:
    cache.log.close()
    assert (await cache.send("GET", "/v2/")).status == 200
    await cache.stop()
    gc.collect()
    assert caplog.records == []
    cache.log = io.StringIO()
    await cache.start()
    assert (await cache.send("GET", "/v2/")).status == 200
