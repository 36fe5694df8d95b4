"""HTTPS_PROXY, HTTP_PROXY and NO_PROXY (PROTOCOL 8.22)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from yarl import URL

from proxy.oci.errors import Unavailable
from proxy.upstream.proxies import Proxies, Proxy
from tests.fake_hub import FakeHub
from tests.upstream_rig import LATEST, REPOSITORY, started

LOGIN = "Basic dXNlcjpwQHNz"  # user:p@ss


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "https://registry.example/", None),
        ({"https": "http://proxy.example:3128"}, "https://registry.example/", "http://proxy.example:3128"),
        ({"https": "proxy.example:3128"}, "https://registry.example/", "http://proxy.example:3128"),
        ({"http": "http://proxy.example:3128"}, "https://registry.example/", None),
        ({"https": "http://a.example", "http": "http://b.example"}, "http://registry.example/", "http://b.example"),
        ({"https": "http://a.example", "no": "registry.example"}, "https://registry.example/", None),
        ({"https": "http://a.example", "no": "example"}, "https://registry.example/", None),
        ({"https": "http://a.example", "no": ".example"}, "https://registry.example/", None),
        ({"https": "http://a.example", "no": "other.example"}, "https://registry.example/", "http://a.example"),
        ({"https": "http://a.example", "no": "registry.example:99"}, "https://registry.example/", "http://a.example"),
        ({"https": "http://a.example", "no": "registry.example:99"}, "https://registry.example:99/", None),
        ({"https": "http://a.example", "no": "*"}, "https://registry.example/", None),
        ({"https": "http://a.example"}, "https://127.0.0.1:5000/", None),
        ({"https": "http://a.example"}, "https://[::1]:5000/", None),
        ({"https": "http://a.example"}, "https://localhost/", None),
        ({"https": ""}, "https://registry.example/", None),
    ],
)
def test_which_proxy_a_url_is_asked_through(environment: dict[str, str], url: str, proxy: str | None) -> None:
    found = Proxies(environment).proxy_for(URL(url))
    assert (str(found.url) if found else None) == proxy


def test_the_login_of_a_proxy_is_sent_and_never_shown() -> None:
    proxy = Proxy.parse("http://user:p%40ss@proxy.example:3128")
    assert str(proxy.url) == "http://proxy.example:3128"
    assert proxy.headers == {"Proxy-Authorization": LOGIN}
    assert "p@ss" not in repr(proxy) and LOGIN not in repr(proxy)


@pytest.mark.parametrize("text", ["socks5://user:secret@proxy.example", "http://", "http://proxy.example:secret"])
def test_a_proxy_that_we_cannot_speak_to_is_unavailable_and_not_passed_by(text: str) -> None:
    with pytest.raises(Unavailable) as refused:
        Proxies({"https": text}).proxy_for(URL("https://registry.example"))
    assert "secret" not in str(refused.value)


async def test_http_goes_through_the_proxy_of_the_environment_with_its_login(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeHub() as hub, http_proxy(hub) as (port, heads):
        monkeypatch.setenv("http_proxy", f"http://user:p%40ss@127.0.0.1:{port}")
        hub.realm = "http://registry.example/token"
        hub.direct_blobs = True
        image = hub.add_image(REPOSITORY.name, "latest")
        async with started("http://registry.example") as upstream:
            assert (await upstream.get_manifest(REPOSITORY, LATEST)).body == image.body

    assert heads[0].startswith(f"GET http://registry.example/v2/{REPOSITORY.name}/manifests/latest ")
    assert all(f"Proxy-Authorization: {LOGIN}" in head for head in heads)


async def test_https_is_tunnelled_through_the_proxy_and_the_login_stays_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with FakeHub() as hub, http_proxy(hub) as (port, heads):
        monkeypatch.setenv("https_proxy", f"http://user:p%40ss@127.0.0.1:{port}")
        async with started("https://registry.example") as upstream:
            with pytest.raises(Unavailable, match="the HTTP proxy refused with status 407"):
                await upstream.get_manifest(REPOSITORY, LATEST)

    (head,) = heads
    assert head.startswith("CONNECT registry.example:443 ")
    assert f"Proxy-Authorization: {LOGIN}" in head


async def test_a_proxy_that_is_gone_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeHub() as hub:
        await hub.gone()
        monkeypatch.setenv("http_proxy", hub.url)
        async with started("http://registry.example") as upstream:
            with pytest.raises(Unavailable, match="the HTTP proxy cannot be reached"):
                await upstream.get_manifest(REPOSITORY, LATEST)


async def test_no_proxy_is_honoured_and_netrc_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login alice password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with FakeHub() as hub:
        monkeypatch.setenv("http_proxy", hub.stranger_url)
        async with started(hub.url) as upstream:
            hub.add_image(REPOSITORY.name, "latest")
            await upstream.get_manifest(REPOSITORY, LATEST)
        assert hub.violations == []
        assert {request.listener for request in hub.requests} == {"registry", "token"}
        assert hub.token_count(hub.username) == 0


@asynccontextmanager
async def http_proxy(hub: FakeHub) -> AsyncIterator[tuple[int, list[str]]]:
    """A forward proxy that takes every host for the hub, and refuses tunnels; with the heads of what it was asked."""
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            heads.append(head)
            if head.startswith("CONNECT"):
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            else:
                writer.write(await forwarded(hub, head))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], heads


async def forwarded(hub: FakeHub, head: str) -> bytes:
    """The answer of the hub to a request in absolute form."""
    line, _, rest = head.partition("\r\n")
    method, url, version = line.split(" ")
    path = url.removeprefix("http://registry.example")
    port = URL(hub.token_url if path.startswith("/token") else hub.url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {path} {version}\r\nConnection: close\r\n{rest}".encode())
    answer = await reader.read()
    writer.close()
    return answer
