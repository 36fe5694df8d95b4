"""Registries with certificates of their own, over real handshakes; and the proxy of one upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from proxy.app import App, StartError
from proxy.config import UpstreamOptions
from proxy.oci.manifests import OCI_MANIFEST
from proxy.oci.names import Digest
from tests.authority import DAY, Authority
from tests.cache_rig import CacheRig

BODY = b'{"schemaVersion": 2}'


@asynccontextmanager
async def registry(authority: Authority, folder: Path) -> AsyncIterator[str]:
    """A registry over https that wants no login and has one manifest; its URL."""

    async def answer(request: web.Request) -> web.Response:
        headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": str(Digest.of(BODY))}
        return web.Response(body=BODY, headers=headers)

    application = web.Application()
    application.router.add_get("/v2/{rest:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=authority.sign(folder, "localhost", -DAY, DAY))
        await site.start()
        yield f"https://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def cache_of(tmp_path: Path, upstream: UpstreamOptions) -> CacheRig:
    return CacheRig(upstream.url, tmp_path / "cache", options={"upstreams": (upstream,)})


async def status_of(cache: CacheRig) -> int:
    async with cache:
        return (await cache.get_manifest("acme/app", "latest")).status


async def test_a_certificate_of_an_unknown_authority_is_refused(tmp_path: Path) -> None:
    async with registry(Authority(), tmp_path) as url:
        assert await status_of(cache_of(tmp_path, UpstreamOptions(name="own.example", url=url))) == 503


async def test_the_authority_of_an_upstream_is_trusted(tmp_path: Path) -> None:
    authority = Authority()
    async with registry(authority, tmp_path) as url:
        upstream = UpstreamOptions(name="own.example", url=url, ca=authority.write(tmp_path))
        assert await status_of(cache_of(tmp_path, upstream)) == 200


async def test_the_authority_of_one_upstream_is_not_that_of_another(tmp_path: Path) -> None:
    authority = Authority()
    async with registry(authority, tmp_path) as url:
        trusting = UpstreamOptions(name="own.example", url=url, ca=authority.write(tmp_path))
        other = UpstreamOptions(name="other.example", url=url)
        async with CacheRig(url, tmp_path / "cache", options={"upstreams": (trusting, other)}) as cache:
            assert (await cache.get_manifest("own.example/acme/app", "latest")).status == 200
            assert (await cache.get_manifest("other.example/acme/app", "latest")).status == 503


async def test_insecure_verifies_nothing_and_has_to_be_said(tmp_path: Path) -> None:
    async with registry(Authority(), tmp_path) as url:
        upstream = UpstreamOptions(name="own.example", url=url, insecure=True)
        assert await status_of(cache_of(tmp_path, upstream)) == 200


async def test_a_file_that_holds_no_certificate_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not one")
    rig = cache_of(tmp_path, UpstreamOptions(name="own.example", url="https://localhost:1", ca=tmp_path / "ca.pem"))

    with pytest.raises(StartError, match=r"certificates .* own\.example"):
        await App(rig.config()).start()


async def test_an_upstream_s_proxy_is_asked_or_none_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host name exists nowhere: only a proxy could know it."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(str(request.url))
        headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": str(Digest.of(BODY))}
        return web.Response(body=BODY, headers=headers)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    proxy = f"http://127.0.0.1:{runner.addresses[0][1]}"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    try:
        own = UpstreamOptions(name="own.example", url="http://registry.invalid", proxy=proxy)
        assert await status_of(cache_of(tmp_path, own)) == 200
    finally:
        await runner.cleanup()

    assert asked
    assert {url.partition("/v2/")[0] for url in asked} == {"http://registry.invalid"}
