"""Upstreams that are gone, slow, or no registry at all: foreign exceptions never escape (STYLE 3.8)."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxy.oci.errors import Unavailable
from proxy.oci.names import Digest
from proxy.upstream import failures
from proxy.upstream.client import Upstream
from proxy.upstream.failures import FOREIGN, describe
from tests.eventually import eventually
from tests.fake_hub import FakeHub, at
from tests.upstream_rig import LATEST, REPOSITORY, asking, fetched, started

BLOB = Digest.of(b"blob")


async def ask_everything(upstream: Upstream) -> list[str]:
    """The messages of the Unavailable that every verb raises."""

    async def open_blob() -> None:
        async with upstream.open_blob(REPOSITORY, BLOB):
            pass

    messages = []
    for verb in (
        lambda: upstream.head_manifest(REPOSITORY, LATEST),
        lambda: upstream.get_manifest(REPOSITORY, LATEST),
        lambda: upstream.head_blob(REPOSITORY, BLOB),
        lambda: upstream.is_public(REPOSITORY, LATEST),
        open_blob,
    ):
        with pytest.raises(Unavailable) as refused:
            await verb()
        messages.append(refused.value.message)
    return messages


async def test_an_upstream_that_is_gone() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        await hub.gone()

        for message in await ask_everything(upstream):
            assert message == "docker.io: no connection (Connection refused)"
        await hub.back()
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.head_manifest(REPOSITORY, LATEST)


async def test_a_token_server_that_is_gone() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        await hub.gone("token")

        for message in await ask_everything(upstream):
            assert message == "docker.io: no connection (Connection refused)"


async def test_an_upstream_whose_name_does_not_resolve() -> None:
    async with started("https://" + ".".join(["a" * 60] * 5)) as upstream:  # too long for any name server to be asked
        for message in await ask_everything(upstream):
            assert message == "docker.io: its host name does not resolve"


async def test_an_upstream_whose_name_cannot_be_a_name() -> None:
    async with started(f"https://{'a' * 70}.example") as upstream:
        for message in await ask_everything(upstream):
            assert message.startswith("docker.io: ")


async def test_an_upstream_that_speaks_no_http() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.garbage("registry")

        for message in await ask_everything(upstream):
            assert message == "docker.io: an answer that is not HTTP"


async def test_an_upstream_that_accepts_and_says_nothing() -> None:
    async with FakeHub() as hub, asking(hub, idle_timeout=0.1) as upstream:
        hub.hang("registry")

        for message in await ask_everything(upstream):
            assert message == "docker.io: nothing arrived within the idle time-out"


async def test_all_but_the_body_of_a_blob_is_bounded_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "SMALL_SECONDS", 0.1)
    async with FakeHub() as hub, asking(hub) as upstream:
        image = hub.add_image(REPOSITORY.name, "latest", [bytes(1_000_000)])
        hub.hang(at("manifest"))
        with pytest.raises(Unavailable, match="no answer in time"):
            await upstream.head_manifest(REPOSITORY, LATEST)

        hub.heal()
        hub.hold("manifest", 10)
        with pytest.raises(Unavailable, match="no answer in time"):
            await upstream.get_manifest(REPOSITORY, LATEST)

        hub.heal()
        hub.hang("token")
        upstream.clock.turn(3600)
        with pytest.raises(Unavailable, match="no answer in time"):
            await fetched(upstream, image.config)

        hub.heal()
        hub.hang("cdn")
        reading = asyncio.create_task(fetched(upstream, image.layers[0]))
        await hub.wait_held("cdn")
        with pytest.raises(Unavailable, match="no answer in time"):
            await upstream.head_blob(REPOSITORY, Digest.parse(image.layers[0]))
        hub.release()
        assert await reading == bytes(1_000_000)


async def test_a_connect_that_takes_too_long() -> None:
    with socket.socket() as listener, contextlib.ExitStack() as queue:
        # A listener whose queue is full drops what else comes, as a firewall does.
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with started(url, connect_timeout=0.1) as upstream:
            for message in await ask_everything(upstream):
                assert message == "docker.io: no connection within the connect time-out"


async def test_a_kept_connection_that_breaks_under_a_request_is_replaced_at_once() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        await upstream.head_manifest(REPOSITORY, LATEST)
        first = hub.hang("manifest", times=1)
        asked = asyncio.create_task(upstream.head_manifest(REPOSITORY, LATEST))
        await eventually(lambda: first.waiting == 1)
        first.cut()
        await asked


async def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    async with https_server(tmp_path) as url, started(url) as upstream:
        for message in await ask_everything(upstream):
            assert message.startswith("docker.io: its certificate was refused (")


async def test_a_plain_server_that_is_asked_by_https() -> None:
    async with FakeHub() as hub, started(hub.url.replace("http:", "https:")) as upstream:
        for message in await ask_everything(upstream):
            assert message in ("docker.io: TLS failed", "docker.io: the connection broke")


async def test_before_start_and_after_close_there_are_no_connections() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        pass
    for message in await ask_everything(upstream):
        assert message == "docker.io: the connections are closed"


@pytest.mark.parametrize("kind", FOREIGN)
def test_no_text_of_a_foreign_exception_is_passed_on(kind: type[Exception]) -> None:
    arguments = {
        UnicodeError: ("https://cdn.example/?verify=secret",),
        OSError: (5, "https://cdn.example/?verify=secret"),
    }
    error = kind(*arguments.get(kind, ("https://cdn.example/?verify=secret",)))

    assert "secret" in repr(error)
    assert "secret" not in describe(error)


def test_an_unexpected_client_error_is_named_by_its_class() -> None:
    assert describe(aiohttp.InvalidURL("https://x/?secret")) == "the request failed (InvalidURL)"
    assert describe(TimeoutError()) == "no answer in time"
    assert describe(aiohttp.ConnectionTimeoutError("x")) == "no connection within the connect time-out"


@asynccontextmanager
async def https_server(folder: Path) -> AsyncIterator[str]:
    """A server on loopback whose certificate is its own."""
    context = await asyncio.to_thread(self_signed, folder)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context
