"""A public registry may not send us to private addresses; one that is private itself may send us anywhere."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from proxy.oci.errors import Unavailable
from proxy.upstream import connections, redirects
from proxy.upstream.redirects import is_private_address, literal_address
from tests.fake_hub import FakeHub
from tests.upstream_rig import LATEST, REPOSITORY, RiggedUpstream, asking, fetched, started

CONTENT = b"layer"
REFUSED = "docker.io: it sends us to a private address, which a public registry may not"

PRIVATE = [
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3"),
    *("169.254.169.254", "169.254.0.1"),  # link-local, and the metadata services of clouds
    *("100.64.0.1", "100.127.255.255"),  # carriers
    *("192.0.2.1", "198.18.0.1", "203.0.113.7", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fe80::1", "fe80::1%lo", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
    *("::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1"),
    *("64:ff9b::10.0.0.1", "2002:7f00:1::", "2002:a00:1::"),
]
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "104.18.123.25", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1"),
    *("169.253.0.1", "2606:4700::6810:7b19", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private(address: str) -> None:
    assert is_private_address(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert not is_private_address(address)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("10.258", "10.0.1.2"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F.0x1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("2852039166", "169.254.169.254"),
        ("0xa9.0xfe.0xa9.0xfe", "169.254.169.254"),
        ("[::1]", "::1"),
        ("::ffff:7f00:1", "::ffff:7f00:1"),
        ("cdn.example", None),
        ("localhost", None),
        ("dead.beef", None),
        ("0xcafe.example", None),
        ("1.2.3.4.5", None),
        ("256.1.1.1", None),
        ("", None),
    ],
)
def test_an_address_is_seen_in_every_spelling(host: str, address: str | None) -> None:
    assert literal_address(host) == address


@pytest.fixture
def public_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 counts as public; every other address is what it is."""

    def judge(address: str) -> bool:
        return address != "127.0.0.1" and redirects.is_private_address(address)

    monkeypatch.setattr(connections, "is_private_address", judge)


def resolve(monkeypatch: pytest.MonkeyPatch, name: str, answer: Callable[[], list[str]]) -> None:
    """Let a name resolve to what is answered then."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != name:
            return real(host, port, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer()]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def blob_at(hub: FakeHub, location: str) -> str:
    """A blob that the registry says is there."""
    digest = hub.add_blob(CONTENT)
    hub.link_blob(REPOSITORY.name, digest)
    hub.redirect_to("blob", location)
    return digest


def stranger(hub: FakeHub, host: str) -> str:
    return hub.stranger_url.replace("127.0.0.2", host) + "/blob"


async def refused(upstream: RiggedUpstream, digest: str) -> bool:
    """Some spellings of addresses aiohttp refuses by itself, whatever they lead to."""
    with pytest.raises(Unavailable) as error:
        await fetched(upstream, digest)
    return error.value.message in (REFUSED, "docker.io: the request failed (InvalidUrlClientError)")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.2",
        "127.0.0.2.",
        "127.2",
        "0x7f.2",
        "2130706434",
        "0177.0.0.2",
        "[::1]",
        "[::ffff:127.0.0.2]",
        "10.1.2.3",
    ],
)
@pytest.mark.usefixtures("public_hub")
async def test_a_redirect_to_a_private_address_is_refused_however_it_is_written(host: str) -> None:
    """The addresses beyond loopback would fail the test if a connection to them were begun."""
    async with FakeHub() as hub, asking(hub) as upstream:
        assert await refused(upstream, blob_at(hub, stranger(hub, host)))
        assert hub.count("GET", "stranger") == 0


@pytest.mark.usefixtures("public_hub")
async def test_a_redirect_to_the_metadata_service_is_refused() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        assert await refused(upstream, blob_at(hub, "http://169.254.169.254/latest/meta-data/"))


@pytest.mark.usefixtures("public_hub")
async def test_a_name_is_judged_by_the_address_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it resolved to before, or for somebody else, does not count."""
    addresses = iter([["127.0.0.1"], ["127.0.0.2"]])
    resolve(monkeypatch, "cdn.example", lambda: next(addresses))
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = blob_at(hub, hub.cdn_url.replace("127.0.0.1", "cdn.example") + "/once")
        with pytest.raises(Unavailable, match="the redirect's target answered 403"):
            await fetched(upstream, digest)

        async with asking(hub) as later:
            hub.heal()
            assert await refused(later, blob_at(hub, stranger(hub, "cdn.example")))
        assert hub.count("GET", "stranger") == 0


@pytest.mark.usefixtures("public_hub")
async def test_of_several_addresses_only_the_public_ones_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, "cdn.example", lambda: ["127.0.0.2", "10.0.0.1", "127.0.0.1"])
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = blob_at(hub, hub.cdn_url.replace("127.0.0.1", "cdn.example") + "/x")
        with pytest.raises(Unavailable, match="the redirect's target answered 403"):
            await fetched(upstream, digest)


@pytest.mark.usefixtures("public_hub")
async def test_the_second_hop_is_judged_as_the_first() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        digest = blob_at(hub, hub.cdn_url + "/first")
        hub.redirect_to("cdn", stranger(hub, "127.0.0.2"))
        assert await refused(upstream, digest)


@pytest.mark.usefixtures("public_hub")
async def test_a_token_realm_at_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, "registry.acme.example", lambda: ["127.0.0.1"])
    resolve(monkeypatch, "auth.acme.example", lambda: ["127.0.0.2"])
    async with FakeHub() as hub:
        hub.add_image(REPOSITORY.name, "latest")
        hub.realm = stranger(hub, "auth.acme.example")
        async with started(hub.url.replace("127.0.0.1", "registry.acme.example")) as upstream:
            with pytest.raises(Unavailable, match="a private address"):
                await upstream.head_manifest(REPOSITORY, LATEST)
        assert hub.token_count() == hub.count("GET", "stranger") == 0


async def test_a_registry_that_is_private_itself_may_send_us_anywhere() -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        await fetched(upstream, blob_at(hub, stranger(hub, "127.0.0.2")))
        assert hub.count("GET", "stranger") == 1


@pytest.mark.usefixtures("public_hub")
async def test_what_is_refused_once_is_no_obstacle_to_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeHub() as hub, asking(hub) as upstream:
        hub.add_image(REPOSITORY.name, "latest")
        assert await refused(upstream, blob_at(hub, stranger(hub, "127.0.0.2")))
        hub.heal()
        digest = hub.add_blob(CONTENT)
        assert await fetched(upstream, digest) == CONTENT
        await upstream.head_manifest(REPOSITORY, LATEST)


@pytest.mark.parametrize(
    ("registry", "location", "is_refused"),
    [
        ("registry.example", "http://10.0.0.1/", True),
        ("registry.example", "http://0xa000001/", True),
        ("registry.example", "http://[::ffff:10.0.0.1]/", True),
        ("registry.example", "http://cdn.example/", False),
        ("registry.example", "http://8.8.8.8/", False),
        ("8.8.4.4", "http://10.0.0.1/", True),
        ("10.0.0.2", "http://10.0.0.1/", False),
    ],
)
async def test_through_a_proxy_only_addresses_that_are_written_out_are_judged(
    registry: str, location: str, is_refused: bool
) -> None:
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        url = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        asked.append(url)
        if url.startswith(f"http://{registry}/"):
            writer.write(f"HTTP/1.1 307 Go\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlayer")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with started(f"http://{registry}", proxy=proxy) as upstream:
            digest = FakeHub().add_blob(CONTENT)
            if is_refused:
                assert await refused(upstream, digest)
            else:
                assert await fetched(upstream, digest) == CONTENT
    assert (location in asked) is not is_refused
