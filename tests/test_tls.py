"""The client listener over TLS: the same answers, the same rules, and a certificate that is renewed meanwhile."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from yarl import URL

from proxy.app import App, StartError
from proxy.certificates import server_context
from proxy.cli.banner import banner
from proxy.config import Address, Config, ConfigError, ServerOptions, Share, check_files, load
from proxy.doctor.cache import RunningCache
from proxy.server import certificate as certificates
from proxy.server.connections import Connections
from proxy.server.floor import Floor
from proxy.server.pump import TURN_BYTES, Pump
from proxy.server.stretches import SealedStretch
from proxy.server.tls import PIECE_BYTES, Tls
from tests.authority import Authority
from tests.blob_rig import (
    MIB,
    REPOSITORY,
    add_layer,
    assert_never_whole,
    nothing_left_open,
    readers,
    small_pauses,
    stored,
)
from tests.cache_rig import CacheRig, gather
from tests.config_rig import refusal, write
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.leftovers import nothing_left_over
from tests.ports import free_port
from tests.quota_rig import api
from tests.raw_http import raw_client
from tests.service_rig import service, write_config
from tests.tls_rig import TlsClient, connected, options, secured, tls_client, trusting

REFUSED = "pullthrough_connections_refused_total"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def trust(authority: Authority, tmp_path: Path) -> ssl.SSLContext:
    return trusting(authority, tmp_path)


@pytest.fixture
async def cache(hub: FakeHub, tmp_path: Path, authority: Authority) -> AsyncIterator[CacheRig]:
    """One that speaks TLS."""
    async with secured(hub.url, tmp_path, authority) as running:
        yield running


async def refused(cache: CacheRig, reason: str, count: int) -> None:
    """Wait until so many connections were ended for this reason."""

    async def counted() -> bool:
        return await cache.metric(REFUSED, reason=reason) == count

    await eventually(counted, label=f"{count} connections were ended: {reason}")


async def only(cache: CacheRig, count: int) -> None:
    """Wait until so many connections are open; the rig keeps those that it has used."""
    await eventually(lambda: len(cache.app._connections) == count, label=f"{count} connections are open")


def serial_of(client: TlsClient) -> str:
    certificate = client.session.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


# The same answers


async def test_manifests_and_small_blobs_are_the_same_as_ever(cache: CacheRig, hub: FakeHub) -> None:
    image = hub.add_image(REPOSITORY, "latest", [b"layer"])
    config = json.loads(image.body)["config"]["digest"]

    first = await cache.get_manifest(REPOSITORY, "latest")
    again = await cache.get_manifest(REPOSITORY, "latest")
    small = await cache.get_blob(REPOSITORY, config)

    assert cache.url.startswith("https://")
    assert first.body == again.body == image.body
    assert "hit" in again.cache_status
    assert (small.status, small.body) == (200, hub.content_of(config).read(0, 1 << 20))
    assert (await cache.head_blob(REPOSITORY, config)).headers["Content-Length"] == str(len(small.body))


async def test_http_1_1_is_agreed_upon_over_tls_1_2_and_later(cache: CacheRig, trust: ssl.SSLContext) -> None:
    trust.set_alpn_protocols(["h2", "http/1.1"])
    versions = []
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        trust.minimum_version = trust.maximum_version = version
        async with tls_client(cache.url, trust) as client:
            versions.append((client.session.version(), client.session.selected_alpn_protocol()))
            await client.ask("/v2/")
            assert (await client.reply()).status == 200
    assert versions == [("TLSv1.2", "http/1.1"), ("TLSv1.3", "http/1.1")]


async def test_the_same_bytes_within_a_second_are_not_parsed_again(
    cache: CacheRig, hub: FakeHub, trust: ssl.SSLContext
) -> None:
    image = hub.add_image(REPOSITORY, "latest", [b"layer"])
    await cache.get_manifest(REPOSITORY, "latest")
    async with tls_client(cache.url, trust) as client:
        bodies, parsed = [], []
        for _ in range(4):
            await client.ask(f"/v2/{REPOSITORY}/manifests/latest")
            bodies.append((await client.reply()).body)
            parsed.append(cache.app._connections.requests_count)
    assert bodies == [image.body] * 4
    assert parsed[1:] == parsed[1:2] * 3


async def test_a_request_in_many_records_is_one_and_its_connection_is_kept(
    hub: FakeHub, tmp_path: Path, authority: Authority, trust: ssl.SSLContext
) -> None:
    async with (
        secured(hub.url, tmp_path, authority, header_timeout=0.3) as cache,
        tls_client(cache.url, trust) as client,
    ):
        for _ in range(2):
            for byte in b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n":
                await client.send(bytes([byte]))
            assert (await client.reply()).status == 200
            await asyncio.sleep(0.4)  # Longer than for a header: nothing of one has come.


@pytest.mark.parametrize("span", [None, (0, 1), (PIECE_BYTES - 1, PIECE_BYTES + 1), (5 * MIB, 9 * MIB)])
async def test_a_large_blob_and_its_ranges_come_as_they_are(
    cache: CacheRig, hub: FakeHub, span: tuple[int, int] | None
) -> None:
    layer = add_layer(hub, 9 * MIB + 7)
    cold = await cache.get_blob(REPOSITORY, layer.digest)
    assert (cold.status, cold.body) == (200, layer.content)

    start, stop = span or (0, layer.size)
    wanted = {} if span is None else {"Range": f"bytes={start}-{stop - 1}"}
    warm = await cache.get_blob(REPOSITORY, layer.digest, **wanted)

    assert (warm.status, warm.body) == (206 if span else 200, layer.content[start:stop])
    served = await cache.metric("pullthrough_served_bytes_total", kind="blob")
    assert served == layer.size + stop - start


async def test_eight_readers_follow_a_running_fill_with_one_fetch(cache: CacheRig, hub: FakeHub) -> None:
    layer = add_layer(hub, 8 * MIB)
    hub.hold("cdn", 3 * MIB)
    async with asyncio.TaskGroup() as clients:
        pulls = [clients.create_task(cache.get_blob(REPOSITORY, layer.digest)) for _ in range(8)]
        await readers(cache, layer.digest, 8)
        hub.release()

    assert {(pull.result().status, pull.result().body) for pull in pulls} == {(200, layer.content)}
    assert hub.count("GET", "cdn") == 1


async def test_a_connection_is_good_for_more_after_a_large_blob(
    cache: CacheRig, hub: FakeHub, trust: ssl.SSLContext
) -> None:
    layer = add_layer(hub, 3 * MIB)
    async with tls_client(cache.url, trust) as client:
        for _ in range(3):
            await client.ask(layer.path)
            assert (await client.reply()).body == layer.content
            await client.ask("/v2/")
            assert (await client.reply()).body == b"{}"


# What is broken off


async def test_a_client_that_leaves_in_a_body_changes_nothing(
    cache: CacheRig, hub: FakeHub, trust: ssl.SSLContext
) -> None:
    layer = add_layer(hub, 8 * MIB)
    hub.hold("cdn", 4 * MIB)
    async with tls_client(cache.url, trust) as client:
        await client.ask(layer.path)
        await client.head()
        await client.read(100_000)
        await readers(cache, layer.digest, 1)
    await readers(cache, layer.digest, 0)
    await only(cache, 0)
    hub.release()
    await stored(cache, layer.digest)
    assert (await cache.get_blob(REPOSITORY, layer.digest)).body == layer.content
    await nothing_left_open(cache)


@pytest.mark.parametrize("at_byte", [MIB, 3 * MIB - 1], ids=["middle", "last"])
async def test_a_wrong_body_never_looks_complete(
    cache: CacheRig, hub: FakeHub, trust: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, at_byte: int
) -> None:
    small_pauses(monkeypatch)
    layer = add_layer(hub, 3 * MIB)
    hub.corrupt(layer.digest, at_byte)
    async with tls_client(cache.url, trust) as client:
        await client.ask(layer.path)
        status, headers = await client.head()
        received = await client.rest()

    assert (status, headers["Content-Length"]) == (200, str(layer.size))
    assert_never_whole(received, layer)
    assert not client.said_end


async def test_what_has_no_room_on_disk_is_passed_on(
    hub: FakeHub, tmp_path: Path, authority: Authority, trust: ssl.SSLContext
) -> None:
    layer = add_layer(hub, 3 * MIB)
    async with secured(hub.url, tmp_path, authority) as running:
        small = replace(running.app.config.cache, max_size=Share(1 * MIB))
        await running.app.reload(replace(running.app.config, cache=small))
        reply = await running.get_blob(REPOSITORY, layer.digest)
        assert (reply.status, reply.body) == (200, layer.content)
        assert running.blobs_on_disk() == set()


async def test_a_body_that_a_stop_breaks_off_never_looks_complete(
    hub: FakeHub, tmp_path: Path, authority: Authority, trust: ssl.SSLContext
) -> None:
    layer = add_layer(hub, 8 * MIB)
    async with secured(hub.url, tmp_path, authority, shutdown_timeout=0.1) as cache:
        await cache.get_blob(REPOSITORY, layer.digest)
        async with tls_client(cache.url, trust, receive_buffer=65536) as client:
            await client.ask(layer.path)
            await client.head()
            await cache.stop()
            assert len(await client.rest()) < layer.size
            assert not client.said_end
        await cache.start()


async def test_nothing_gets_between_the_pieces_of_a_body(
    authority: Authority, trust: ssl.SSLContext, tmp_path: Path
) -> None:
    """As an answer of TLS itself would, which asks for new keys at any time."""
    made: list[Tls] = []
    refused: list[str] = []

    def accept() -> Tls:
        made.append(Tls(asyncio.Protocol(), server_context(*authority.issue(tmp_path)), b"", refused.append))
        return made[-1]

    server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with tls_client(f"https://{host}:{port}", trust) as client:
        (ours,) = made
        await eventually(lambda: ours._is_open, label="the handshake is done on our side too")
        with ours.direct():
            first, second = ours.seal(b"first "), ours.seal(b"second ")
            os.write(ours.get_extra_info("socket").fileno(), first[:10])
            ours.write(b"third ")
            await asyncio.sleep(0)
            os.write(ours.get_extra_info("socket").fileno(), first[10:] + second)
        assert await client.read(len("first second third ")) == b"first second third "
        ours.write(b"fourth")
        assert await client.read(len("fourth")) == b"fourth"
        ours.close()
        assert await client.rest() == b""
        assert client.said_end
    server.close()


# The same rules


async def test_a_slow_reader_is_cut_and_one_that_takes_enough_is_not(
    hub: FakeHub, tmp_path: Path, authority: Authority, trust: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = Floor(bytes=20_000, seconds=0.3)
    monkeypatch.setattr("proxy.app.Connections", functools.partial(Connections, floor=floor))
    monkeypatch.setattr("proxy.app.generation.Pump", functools.partial(Pump, floor))
    layer = add_layer(hub, 8 * MIB)
    async with secured(hub.url, tmp_path, authority) as cache:
        await cache.get_blob(REPOSITORY, layer.digest)
        await cache.metrics()  # Over a connection that is kept.
        async with (
            nothing_left_over(),
            tls_client(cache.url, trust, receive_buffer=65536) as slow,
            tls_client(cache.url, trust, receive_buffer=65536) as healthy,
        ):
            for each in (slow, healthy):
                await each.ask(layer.path)
                await each.head()
            received = b""
            while not await cache.metric(REFUSED, reason="slow_reader"):
                received += await healthy.read(60_000)
                await asyncio.sleep(0.05)
            assert len(await slow.rest()) < layer.size
            assert not slow.said_end
            received += await healthy.read(layer.size - len(received))
        assert received == layer.content
        assert await cache.metric(REFUSED, reason="slow_reader") == 1


async def test_a_slow_reader_of_a_large_manifest_is_measured_by_all_that_waits(
    hub: FakeHub, tmp_path: Path, authority: Authority, trust: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written at once, by the transport, and not by the pump."""
    floor = Floor(bytes=20_000, seconds=0.3)
    monkeypatch.setattr("proxy.app.Connections", functools.partial(Connections, floor=floor))
    body = json.dumps({"schemaVersion": 2, "annotations": {"filler": "a" * (6 * MIB)}}).encode()
    hub.add_manifest(REPOSITORY, body, tag="latest")
    async with secured(hub.url, tmp_path, authority) as cache:
        await cache.get_manifest(REPOSITORY, "latest")
        async with tls_client(cache.url, trust, receive_buffer=65536) as client:
            await client.ask(f"/v2/{REPOSITORY}/manifests/latest")
            await client.head()
            received = b""
            for _ in range(20):  # A second, of which our end of the connection writes little.
                received += await client.read(60_000)
                await asyncio.sleep(0.05)
            received += await client.read(len(body) - len(received))
        assert received == body
        assert await cache.metric(REFUSED, reason="slow_reader") is None


@pytest.mark.parametrize("how", ["close_notify", "FIN"])
async def test_a_client_that_says_no_more_is_answered_all_the_same(
    cache: CacheRig, hub: FakeHub, trust: ssl.SSLContext, how: str
) -> None:
    layer = add_layer(hub, 5 * MIB)
    await cache.get_blob(REPOSITORY, layer.digest)
    before = len(cache.app._connections)
    async with tls_client(cache.url, trust) as client:
        await client.ask(layer.path)
        if how == "FIN":
            client.socket.shutdown(socket.SHUT_WR)
        else:
            await client.say_end()
        reply = await client.reply()
        assert (reply.status, reply.body) == (200, layer.content)
        assert await client.rest() == b""
    await only(cache, before)


async def test_the_end_of_a_connection_is_said(cache: CacheRig, trust: ssl.SSLContext) -> None:
    async with tls_client(cache.url, trust) as client:
        await client.ask("/v2/", "Connection: close")
        assert (await client.reply()).body == b"{}"
        assert await client.rest() == b""
        assert client.said_end


@pytest.mark.parametrize("said", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
async def test_a_handshake_that_never_ends_is_ended(
    hub: FakeHub, tmp_path: Path, authority: Authority, said: bytes
) -> None:
    async with secured(hub.url, tmp_path, authority, header_timeout=0.2) as cache, connected(cache.url) as sock:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, said)
        await refused(cache, "header_timeout", 1)
        assert await loop.sock_recv(sock, 100) == b""
        await only(cache, 0)


async def test_connections_count_before_their_handshake(
    hub: FakeHub, tmp_path: Path, authority: Authority, trust: ssl.SSLContext
) -> None:
    async with secured(hub.url, tmp_path, authority, max_connections=1) as cache, connected(cache.url) as silent:
        await eventually(lambda: len(cache.app._connections) == 1)
        async with nothing_left_over(), tls_client(cache.url, trust) as late:
            reply = await late.reply()
            assert (reply.status, reply.code) == (503, "UNAVAILABLE")
            assert await late.rest() == b""
            assert late.said_end
        silent.close()
        await only(cache, 0)
        async with tls_client(cache.url, trust) as next_one:
            await next_one.ask("/v2/")
            assert (await next_one.reply()).status == 200


async def test_plain_http_is_told_that_this_is_https(cache: CacheRig) -> None:
    async with raw_client(cache.url) as client:
        client.ask("GET", "/v2/")
        reply = await client.reply()
        assert (reply.status, reply.code, reply.headers["Connection"]) == (400, "UNSUPPORTED", "close")
        assert "https" in json.loads(reply.body)["errors"][0]["message"]
        assert await client.rest() == b""
    await refused(cache, "not_tls", 1)
    await only(cache, 0)


async def test_a_client_that_does_not_trust_us_is_counted_and_logged(
    cache: CacheRig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with connected(cache.url) as sock:
        with pytest.raises(ssl.SSLCertVerificationError):
            await TlsClient(sock, ssl.create_default_context()).shake_hands()
    async with connected(cache.url) as sock:
        await asyncio.get_running_loop().sock_sendall(sock, b"\x16\x03\x01\x00\x04\x02\x00\x00\x00")
        assert (await asyncio.get_running_loop().sock_recv(sock, 100))[:1] == b"\x15"  # An alert, TLS's own words.
    await refused(cache, "tls_handshake", 2)
    assert "the handshake of TLS with 127.0.0.1 failed: tlsv1 alert unknown ca" in caplog.text
    await only(cache, 0)


async def test_garbage_after_the_handshake_ends_the_connection(cache: CacheRig, trust: ssl.SSLContext) -> None:
    async with tls_client(cache.url, trust) as client:
        await asyncio.get_running_loop().sock_sendall(client.socket, b"\x17\x03\x03\x00\x20" + b"x" * 32)
        with pytest.raises(ssl.SSLError):
            await client.rest()
    await only(cache, 0)


async def test_no_turn_of_the_loop_encrypts_more_than_its_budget(
    cache: CacheRig, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = add_layer(hub, 4 * MIB)
    await cache.get_blob(REPOSITORY, layer.digest)
    moved = [0]
    push = SealedStretch.push

    def counted(stretch: SealedStretch, most: int) -> bool:
        before = stretch.sent
        try:
            return push(stretch, most)
        finally:
            moved[-1] += stretch.sent - before

    def turn() -> None:
        moved.append(0)
        loop.call_soon(turn)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(SealedStretch, "push", counted)
    loop.call_soon(turn)
    replies = await gather(*(cache.get_blob(REPOSITORY, layer.digest) for _ in range(6)))

    assert {reply.body for reply in replies} == {layer.content}
    assert sum(moved) > 6 * layer.size
    assert max(moved) <= TURN_BYTES // 4 + 2 * PIECE_BYTES


# The certificate


async def test_a_new_certificate_is_taken_on_a_reload_and_old_connections_go_on(
    cache: CacheRig, authority: Authority, trust: ssl.SSLContext, tmp_path: Path
) -> None:
    async with tls_client(cache.url, trust) as old:
        before = serial_of(old)
        authority.issue(tmp_path)
        await cache.app.reload(cache.app.config)
        async with tls_client(cache.url, trust) as new:
            assert serial_of(new) != before
            for each in (old, new):
                await each.ask("/v2/")
                assert (await each.reply()).status == 200


async def test_a_bad_pair_on_a_reload_leaves_all_as_it_was(
    cache: CacheRig, trust: ssl.SSLContext, tmp_path: Path
) -> None:
    async with tls_client(cache.url, trust) as client:
        before = serial_of(client)
    (tmp_path / "server.key").write_text("nothing")
    with pytest.raises(StartError, match="no private key in PEM"):
        await cache.app.reload(cache.app.config)
    async with tls_client(cache.url, trust) as client:
        assert serial_of(client) == before


async def test_a_renewed_certificate_is_noticed_and_half_a_renewal_is_waited_out(
    hub: FakeHub,
    tmp_path: Path,
    authority: Authority,
    trust: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    looks: list[tuple[Path, Path]] = []
    stamp = certificates._stamp

    def counted(files: tuple[Path, Path]) -> object:
        looks.append(files)
        return stamp(files)

    monkeypatch.setattr(certificates, "_stamp", counted)
    monkeypatch.setattr(certificates, "WATCH_SECONDS", 0.01)
    caplog.set_level(logging.INFO)
    (tmp_path / "renewed").mkdir()
    certificate, key = authority.issue(tmp_path / "renewed")
    async with secured(hub.url, tmp_path, authority) as cache:
        async with tls_client(cache.url, trust) as client:
            before = serial_of(client)

        certificate.replace(tmp_path / "server.crt")
        await eventually(lambda: "is not taken, the one before stays" in caplog.text)
        seen = len(looks)
        await eventually(lambda: len(looks) > seen + 3, label="the files are looked at again")
        async with tls_client(cache.url, trust) as client:
            assert serial_of(client) == before
        key.replace(tmp_path / "server.key")
        await eventually(lambda: "new connections get the new one" in caplog.text)

        async with tls_client(cache.url, trust) as client:
            assert serial_of(client) != before
        assert caplog.text.count("is not taken") == 1


async def test_tls_begins_and_ends_with_a_reload(cache: CacheRig, trust: ssl.SSLContext) -> None:
    config = cache.app.config
    plain = Config(server=ServerOptions(listen=config.server.listen), upstreams=config.upstreams, cache=config.cache)
    assert await cache.app.reload(plain) == ["admin.listen"]
    assert cache.url.startswith("http://")
    async with raw_client(cache.url) as client:
        client.ask("GET", "/v2/")
        assert (await client.reply()).status == 200


async def test_a_stop_waits_for_bodies_and_for_no_handshake(
    hub: FakeHub, tmp_path: Path, authority: Authority, trust: ssl.SSLContext
) -> None:
    layer = add_layer(hub, 8 * MIB)
    async with secured(hub.url, tmp_path, authority) as cache:
        await cache.get_blob(REPOSITORY, layer.digest)
        async with connected(cache.url), tls_client(cache.url, trust, receive_buffer=65536) as client:
            await client.ask(layer.path)
            await client.head()
            stopping = asyncio.ensure_future(cache.stop())
            received = await client.read(layer.size)
            assert received == layer.content
            assert await client.rest() == b""
            assert client.said_end
            await stopping
        await cache.start()


async def test_while_one_process_follows_another_no_handshake_and_no_body_is_lost(
    hub: FakeHub, tmp_path: Path, authority: Authority, trust: ssl.SSLContext
) -> None:
    layer = add_layer(hub, 24 * MIB)
    hub.add_image(REPOSITORY, "latest", [layer.digest])
    files, config = authority.issue(tmp_path), write_config(tmp_path, hub)
    environ = {
        "PULLTHROUGH_SERVER__LISTEN": f"127.0.0.1:{free_port()}",
        "PULLTHROUGH_ADMIN__LISTEN": f"127.0.0.1:{free_port()}",
        "PULLTHROUGH_SERVER__REUSE_PORT": "true",
        "PULLTHROUGH_SERVER__TLS_CERTIFICATE": str(files[0]),
        "PULLTHROUGH_SERVER__TLS_KEY": str(files[1]),
    }
    statuses: list[int] = []

    async def knock(url: str) -> None:
        while True:
            async with tls_client(url, trust) as client:
                await client.ask("/v2/")
                statuses.append((await client.reply()).status)

    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(service(config, environ))
        client = await stack.enter_async_context(tls_client(old.client_url, trust, receive_buffer=65536))
        await client.ask(layer.path)
        await client.head()
        received = await client.read(MIB)
        knocking = asyncio.create_task(knock(old.client_url))
        new = await stack.enter_async_context(service(config, environ))
        old.tell(signal.SIGTERM)
        await old.logged("stopping")
        received += await client.read(layer.size - MIB)
        assert await old.ended() == 0
        count = len(statuses)
        await eventually(lambda: len(statuses) > count + 5 or knocking.done())
        knocking.cancel()
        await asyncio.wait([knocking])
        assert knocking.cancelled(), knocking.exception()
        new.tell(signal.SIGTERM)
        assert await new.ended() == 0
    assert received == layer.content
    assert set(statuses) == {200}


def spoilt(kind: str, folder: Path) -> tuple[Path, Path]:
    """A pair that cannot be used."""
    authority = Authority()
    if kind == "encrypted":
        return authority.issue(folder, password=b"secret")
    certificate, key = authority.issue(folder)
    if kind == "other":
        (folder / "other").mkdir()
        key = authority.issue(folder / "other")[1]
    elif kind == "missing":
        key.unlink()
    elif kind == "swapped":
        certificate, key = key, certificate
    elif kind == "broken":
        certificate.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return certificate, key


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("encrypted", "server.key is encrypted; expected one without a password"),
        ("other", "server.key is not that of the first certificate in"),
        ("missing", "cannot read .*server.key: No such file"),
        ("swapped", "server.key holds no certificate in PEM"),
        ("broken", "cannot be used: "),
    ],
)
async def test_a_pair_that_cannot_be_used_is_said_at_the_start_and_by_check_config(
    hub: FakeHub, tmp_path: Path, kind: str, message: str
) -> None:
    server = options(spoilt(kind, tmp_path))
    with pytest.raises(ConfigError, match=rf"server\.tls_certificate and server\.tls_key: .*{message}"):
        check_files(Config(server=server))
    rig = CacheRig(hub.url, tmp_path / "cache", options={"server": server})
    with pytest.raises(StartError, match=message):
        await App(rig.config()).start()


def test_half_a_pair_is_a_mistake(tmp_path: Path) -> None:
    half = write(tmp_path, "[server]\ntls_certificate = '/a'")
    assert refusal(half, {}) == "server.tls_certificate is given without tls_key; expected both or none"
    other = {"PULLTHROUGH_SERVER__TLS_KEY": "/b"}
    assert load(half, other).server.scheme == "https"
    assert refusal(None, other) == "PULLTHROUGH_SERVER__TLS_KEY is given without tls_certificate; expected both or none"


# What is said of it


async def test_set_up_pages_say_https_and_how_to_trust_an_authority(cache: CacheRig) -> None:
    page = (await cache.send("GET", "/setup/podman")).body.decode()
    assert f"podman through the cache at {cache.url}" in page
    assert f"/etc/containers/certs.d/{cache.url.removeprefix('https://')}/" in page
    assert "insecure" not in page
    shown = await api(cache, "/api/setup")
    assert shown["url"] == cache.url


def test_the_banner_says_https_and_a_name_that_can_be_certified(tmp_path: Path) -> None:
    server = replace(options((tmp_path / "a", tmp_path / "b")), listen=Address("0.0.0.0", 5000))
    text = banner(Config(server=server), "cachehost")
    assert "clients    https://0.0.0.0:5000" in text
    assert '{"registry-mirrors": ["https://cachehost:5000"]}' in text
    assert "http://127.0.0.1:5001/metrics" in text
    assert "127.0.0.1:5000" not in text


async def test_the_doctor_finds_a_cache_that_speaks_tls(cache: CacheRig) -> None:
    """By its address, and whatever signed its certificate."""
    port = URL(cache.url).port
    assert port is not None
    async with RunningCache(Address("0.0.0.0", port), None, "https") as found:
        assert await found.is_ours()
    async with RunningCache(Address("0.0.0.0", port), None) as plain:
        assert not await plain.is_ours()
    async with RunningCache(Address("0.0.0.0", port), cache.url) as given:
        seen = await given.seen()
        assert seen is not None
        assert "certificate" in seen.detail
