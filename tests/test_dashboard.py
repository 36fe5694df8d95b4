"""The dashboard without a browser: what may be loaded, events while somebody looks, set-up lines."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from proxy.server import events
from proxy.server.events import Feed
from tests.cache_rig import CacheRig
from tests.eventually import eventually
from tests.fake_hub import FakeHub
from tests.quota_rig import api

Event = tuple[str, dict[str, Any]]


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """Somebody looks."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/api/events") as response:
        yield response


async def next_event(response: aiohttp.ClientResponse) -> Event:
    """Its name and its document."""
    fields: dict[str, str] = {}
    while not (fields.keys() >= {"event", "data"}):
        async with asyncio.timeout(20):
            line = (await response.content.readuntil(b"\n")).decode().rstrip("\n")
        name, _, value = line.partition(": ")
        fields[name] = value
    return fields["event"], json.loads(fields["data"])


@pytest.mark.parametrize("path", ["/", "/assets/dashboard.js", "/assets/dashboard.css", "/assets/icon.svg"])
async def test_nothing_inline_is_run_and_nothing_comes_from_elsewhere(cache: CacheRig, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(cache.app.admin_url + path) as response:
        text = await response.text()

    policy = response.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert "unsafe" not in response.headers["Content-Security-Policy"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert not re.search(r"(src|href)=\"(https?:)?//|url\(|@import", text)
    assert not re.search(r"<script>|<style|\sstyle=|\son[a-z]+=", text)


async def test_all_that_the_page_loads_is_there(cache: CacheRig) -> None:
    async with aiohttp.ClientSession(cache.app.admin_url) as session:
        wanted, seen = {"/"}, set[str]()
        while wanted - seen:
            path = (wanted - seen).pop()
            async with session.get(path) as response:
                assert response.status == 200, path
                text = await response.text()
            seen.add(path)
            wanted |= set(re.findall(r"\"(/assets/[\w.]+)\"", text))
            wanted |= {f"/assets/{name}" for name in re.findall(r"from \"\./([\w.]+)\"", text)}
        async with session.get("/assets/__init__.py") as response:
            assert response.status == 404
    assert len(seen) == 12


def test_names_of_others_never_become_markup() -> None:
    scripts = (Path(events.__file__).parent / "dashboard" / "assets").glob("*.js")
    text = "\n".join(path.read_text() for path in scripts)

    assert text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text)


async def test_both_sections_are_told_at_once_and_then_what_is_new(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image("acme/app", "latest")
    async with listening(cache.app.admin_url) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        first = dict([await next_event(response), await next_event(response)])
        quota = await api(cache, "/api/quota")
        assert first["quota"] == {name: part for name, part in quota.items() if name != "now"}
        assert first["status"]["now"] == cache.clock.now
        assert first["status"].keys() - {"now"} == (await cache.status()).keys()

        await cache.get_manifest("acme/app", "latest")
        while True:
            name, document = await next_event(response)
            if name == "quota":
                break
        assert document["upstreams"][0]["remaining"] == 99


async def test_nothing_secret_is_told(cache: CacheRig, hub: FakeHub) -> None:
    hub.add_image("acme/app", "latest", [b"layer"])
    await cache.get_manifest("acme/app", "latest")
    async with listening(cache.app.admin_url) as response:
        told = json.dumps([await next_event(response), await next_event(response)])

    assert cache.password not in told
    assert not re.search(r"Bearer|password|Signature", told)


async def test_a_stop_does_not_wait_for_those_who_look(cache: CacheRig) -> None:
    async with listening(cache.app.admin_url) as response:
        await next_event(response)
        await cache.stop()
        await response.content.read()  # Comes to its end, and not by a broken connection.
    await cache.start()


class Section:
    """Counts how often it was made."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> dict[str, object]:
        self.made += 1
        return {"made": self.made}


@pytest.fixture
async def section() -> Section:
    return Section()


@asynccontextmanager
async def served(feed: Feed) -> AsyncIterator[str]:
    """The feed alone, on loopback."""
    application = web.Application()
    application.add_routes(feed.routes())
    application.on_shutdown.append(feed.aclose)
    runner = web.AppRunner(application, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_no_more_listen_than_may(section: Section) -> None:
    feed = Feed({"status": section}, most=2)
    async with served(feed) as url:
        async with listening(url) as first, listening(url) as second, listening(url) as third:
            assert [each.status for each in (first, second, third)] == [200, 200, 503]
            assert third.headers["Retry-After"]
        await eventually(lambda: len(feed) == 0)
        async with listening(url) as again:
            assert again.status == 200


async def test_a_document_is_made_once_for_all_and_not_at_all_for_nobody(
    section: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "INTERVAL", 3600.0)
    feed = Feed({"status": section})
    async with served(feed) as url:
        assert section.made == 0
        async with listening(url) as first, listening(url) as second:
            assert await next_event(first) == await next_event(second) == ("status", {"made": 1})


async def test_the_lines_for_each_client_name_the_cache_as_it_was_reached(cache: CacheRig) -> None:
    document = await api(cache, "/api/setup")

    assert document["url"] == cache.url
    assert {"dockerd", "containerd", "podman"} <= {client["name"] for client in document["clients"]}
    assert cache.url in json.dumps(document["clients"][0]["parts"])


async def test_the_lines_take_another_address_that_is_one(cache: CacheRig) -> None:
    document = await api(cache, "/api/setup?address=cache.example:5000")
    assert document["url"] == "http://cache.example:5000"

    refused = await api(cache, "/api/setup?address=x$(reboot)")
    assert refused["status"] == 400 and "reboot" not in refused["error"]
