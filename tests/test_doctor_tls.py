"""What `doctor` says of certificates: real handshakes with a registry whose CA the test made."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
from aiohttp import web

from proxy.config import Config, UpstreamOptions
from proxy.doctor.findings import State
from proxy.doctor.judge.tls import Handshake, judge_clock, judge_tls, parse_date
from tests.authority import DAY, Authority
from tests.doctor_rig import Findings, case_of, findings, wrong

NOW = 1_800_000_000.0


@asynccontextmanager
async def registry(context: ssl.SSLContext | None, clock_offset: float = 0.0) -> AsyncIterator[int]:
    """An open registry that speaks https; its port."""

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        date = formatdate(time.time() + clock_offset, usegmt=True)
        return web.json_response({}, headers={"Date": date, "Docker-Distribution-Api-Version": "registry/2.0"})

    runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def look(url: str, folder: Path) -> Findings:
    """The findings about an upstream at this URL, without those that stand on a running cache."""
    config = Config(upstreams=(UpstreamOptions(name="registry.example", url=url),))
    config = replace(config, cache=replace(config.cache, directory=folder))
    found = await findings(case_of(config, None, canary=None))
    return {name.removeprefix("registry.example "): finding for name, finding in found.items()}


@pytest.fixture
def authority() -> Authority:
    return Authority()


async def test_a_certificate_of_a_ca_that_is_trusted_is_well(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.trust(tmp_path, monkeypatch)
    async with registry(authority.sign(tmp_path, "localhost", -DAY, 10 * DAY + DAY / 2)) as port:
        found = await look(f"https://localhost:{port}", tmp_path)
    assert found["TLS"].text.startswith("TLSv1.3, certificate good until ")
    assert found["TLS"].text.endswith("(10 days left)")


async def test_a_wrong_ca_is_named(authority: Authority, tmp_path: Path) -> None:
    async with registry(authority.sign(tmp_path, "localhost", -DAY, DAY)) as port:
        found = await look(f"https://localhost:{port}", tmp_path)
    assert "is of a CA that this system does not trust" in wrong(found)["TLS"]
    assert "SSL_CERT_FILE" in (found["TLS"].cure or "")
    assert found["challenge"].text == "not reached: see above"


async def test_a_certificate_for_another_host_is_named(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.trust(tmp_path, monkeypatch)
    async with registry(authority.sign(tmp_path, "elsewhere.example", -DAY, DAY)) as port:
        found = await look(f"https://localhost:{port}", tmp_path)
    assert "its certificate is not for localhost" in wrong(found)["TLS"]


@pytest.mark.parametrize(("start", "end", "how"), [(-9, -2, "has expired"), (2, 9, "is not valid yet")])
async def test_a_certificate_that_is_out_of_date_is_not_blamed_on_a_clock_that_is_right(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: int, end: int, how: str
) -> None:
    authority.trust(tmp_path, monkeypatch)
    async with registry(authority.sign(tmp_path, "localhost", start * DAY, end * DAY)) as port:
        found = await look(f"https://localhost:{port}", tmp_path)
    assert wrong(found)["TLS"] == f"its certificate {how}"
    assert "localhost has to renew it" in (found["TLS"].cure or "")
    assert found["clock"].state is State.OK


async def test_a_wrong_clock_is_named_where_certificates_seem_out_of_date(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.trust(tmp_path, monkeypatch)
    async with registry(authority.sign(tmp_path, "localhost", 2 * DAY, 9 * DAY), clock_offset=3 * 86400) as port:
        found = await look(f"https://localhost:{port}", tmp_path)
    assert "by a clock that is wrong here: this machine's clock is 3d slow" in wrong(found)["TLS"]
    assert "timedatectl" in (found["TLS"].cure or "")
    assert found["clock"].state is State.FAILED


async def test_a_port_without_tls_is_named(tmp_path: Path) -> None:
    async with registry(None) as port:
        found = await look(f"https://127.0.0.1:{port}", tmp_path)
    assert wrong(found)["TLS"].startswith("no TLS: ")
    assert "http://" in (found["TLS"].cure or "")


async def test_a_port_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await left.wait()
        writer.close()

    monkeypatch.setattr("proxy.doctor.network.HANDSHAKE_SECONDS", 0.1)
    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = await look(f"https://127.0.0.1:{port}", tmp_path)
        left.set()
    assert wrong(found)["TLS"].startswith("no TLS: ")


@pytest.mark.parametrize(
    ("refused", "text"),
    [
        (20, "does not trust"),
        (19, "does not trust"),
        (18, "does not trust"),
        (62, "is not for"),
        (10, "has expired"),
        (9, "is not valid yet"),
        (23, "was refused (revoked)"),
    ],
)
def test_each_reason_of_openssl_has_its_cure(refused: int, text: str) -> None:
    finding = judge_tls("registry.example", Handshake(refused=refused, reason="revoked"), NOW)
    assert finding.state is State.FAILED
    assert text in finding.text
    assert finding.cure


@pytest.mark.parametrize(
    ("theirs", "text"),
    [
        (NOW, None),
        (NOW - 119, None),
        (NOW - 600, "this machine's clock is 10m fast"),
        (NOW + 600, "this machine's clock is 10m slow"),
    ],
)
def test_a_clock_is_judged_by_the_upstream_s(theirs: float, text: str | None) -> None:
    finding = judge_clock(theirs, NOW)
    assert (finding.state is State.OK) == (text is None)
    assert text is None or finding.text.startswith(text)


@pytest.mark.parametrize("value", [None, "", "soon", "Tue, 99 Nov 2026 25:61:61 GMT"])
def test_a_date_that_cannot_be_read_is_none(value: str | None) -> None:
    assert parse_date(value) is None
