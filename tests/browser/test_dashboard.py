"""The dashboard as people see it: live, right, and usable by keyboard, by touch and by those who cannot see it."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import Page, expect

from proxy.config import Address, AdminOptions, CacheOptions, Share
from tests.browser.conftest import DESKTOP, PHONE, Open, Scheme
from tests.cache_rig import CacheRig
from tests.fake_hub import FakeHub
from tests.quota_rig import governed

IMAGES = ("library/alpine", "library/postgres", "library/python", "grafana/grafana", "acme/app")
LEVELS = ("plenty", "careful", "tight", "reserve", "exhausted")
MIB = 1024 * 1024
HOUR = 3600


@pytest.fixture
async def busy(hub: FakeHub, tmp_path: Path) -> AsyncIterator[CacheRig]:
    """After five hours of work: more pulls lately, a tag that is gone upstream, a fill that stands half-way."""
    options = {"cache": CacheOptions(directory=tmp_path, max_size=Share(64 * MIB), min_free=Share(0), scrub_rate=0)}
    async with CacheRig(hub.url, tmp_path, options=options, idle_timeout=600.0) as cache:
        await work(cache, hub)
        slow = add_slow(hub, "library/postgres", 24 * MIB)
        gate = hub.hold(slow, 9 * MIB)
        async with cache.open(f"/v2/library/postgres/blobs/{slow}"):
            await hub.wait_held(slow)
            yield cache
            gate.release()


async def work(cache: CacheRig, hub: FakeHub) -> None:
    """Five hours of it; nothing is left to be written down."""
    hub.set_remaining(75)
    for hour, images in enumerate((5, 5, 4, 8, 28)):
        for number in range(images):
            name = IMAGES[number % len(IMAGES)]
            image = hub.add_image(name, f"{hour}.{number}", [b"%d %d" % (hour, number) * 40_000 * (number % 5 + 1)])
            for _ in range(2):
                await cache.get_manifest(name, f"{hour}.{number}")
                await cache.get_blob(name, image.layers[0])
            cache.clock.advance(HOUR / images)
    hub.untag("acme/app", "3.4")
    await cache.get_manifest("acme/app", "3.4")
    cache.app.quotas.watch.look()


def add_slow(hub: FakeHub, repository: str, size: int) -> str:
    """The digest of a blob that the hub makes as it goes."""
    digest = hub.add_synthetic_blob(size)
    hub.link_blob(repository, digest)
    return digest


async def value(page: Page, name: str) -> float:
    """The figure behind what a person reads."""
    found = await page.locator(f"#{name}").get_attribute("value")
    assert found is not None, f"{name} is not known"
    return float(found)


async def live(page: Page) -> None:
    """Wait until the page shows what is."""
    await expect(page.locator("#connection")).to_have_text("live")
    await expect(page.locator("#quotas section")).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
async def test_nobody_is_kept_out(busy: CacheRig, open_page: Open, width: int, scheme: Scheme) -> None:
    async with open_page(busy.app.admin_url, width, scheme) as page:
        await live(page)
        await expect(page.locator("#images tbody tr").first).to_be_visible()
        await expect(page.locator("#setup-lines pre").first).to_be_visible()
        await expect(page.locator("#top-image tbody tr").first).to_be_visible()

        found = await Axe().run(page)
        assert [f"{each['id']}: {each['nodes'][0]['html']}" for each in serious(found.response)] == []
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await take_picture(page, width, scheme)


def serious(response: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in response["violations"] if each["impact"] in ("serious", "critical")]


async def take_picture(page: Page, width: int, scheme: Scheme) -> None:
    """Into this folder, when asked: PULLTHROUGH_WRITE_PICTURES=docs."""
    folder = os.environ.get("PULLTHROUGH_WRITE_PICTURES")
    if folder:
        await page.screenshot(path=Path(folder) / f"dashboard-{width}-{scheme}.png")


async def test_the_figures_are_those_of_the_metrics(busy: CacheRig, open_page: Open) -> None:
    async with open_page(busy.app.admin_url) as page:
        await live(page)

        hits, misses = [await busy.metric(f"pullthrough_{name}_total") or 0.0 for name in ("hits", "misses")]
        assert hits and await value(page, "hit-ratio") == pytest.approx(hits / (hits + misses))
        assert await value(page, "saved-pulls") == await busy.metric("pullthrough_saved_pulls_total")
        assert await value(page, "saved-bytes") == await busy.metric("pullthrough_saved_bytes_total")
        assert await value(page, "outages") == await busy.metric("pullthrough_outages_bridged_total")
        assert await value(page, "cache-bytes") == await busy.metric("pullthrough_cache_bytes")
        assert await value(page, "fill-count") == await busy.metric("pullthrough_fills_running")
        level = page.locator('#quotas [data-part="level"]')
        assert LEVELS.index(await level.inner_text()) == await busy.metric("pullthrough_governor_level")
        shown = page.locator('#quotas [data-part="remaining"]')
        assert float(await shown.get_attribute("value") or -1) == await busy.metric("pullthrough_ratelimit_remaining")


async def test_a_fill_is_seen_to_move(cache: CacheRig, hub: FakeHub, open_page: Open) -> None:
    slow = add_slow(hub, "library/app", 8 * MIB)
    gates = [hub.hold(slow, 2 * MIB), hub.hold(slow, 6 * MIB)]
    async with open_page(cache.app.admin_url) as page:
        await expect(page.locator("#first")).to_be_visible()
        bar = page.locator("#fills progress")
        async with cache.open(f"/v2/library/app/blobs/{slow}") as response:
            for gate, reached in zip(gates, (2 * MIB, 6 * MIB), strict=True):
                await expect(bar).to_have_js_property("value", reached)
                gate.release()
            assert len(await response.read()) == 8 * MIB
        await expect(page.locator("#fills-none")).to_be_visible()
        await expect(page.locator("#first")).to_be_hidden()


async def test_an_image_is_found_and_lines_are_copied_by_keyboard(busy: CacheRig, open_page: Open) -> None:
    async with open_page(busy.app.admin_url) as page:
        await live(page)
        await expect(page.locator("#images tbody tr")).to_have_count(len(IMAGES))
        await tab_to(page, "match")
        await page.keyboard.type("graf")
        await expect(page.locator("#images tbody th")).to_have_text(["grafana/grafana"])
        await expect(page.locator("#found")).to_have_text("1 repository")

        await tab_to(page, "setup-client")
        await page.keyboard.type("podman")
        await expect(page.locator("#setup-lines h3").first).to_contain_text("registries.conf.d")
        await page.locator("#setup-lines button").first.press("Enter")
        await expect(page.locator("#setup-lines button").first).to_have_text("Copied")


async def tab_to(page: Page, wanted: str) -> None:
    for _ in range(40):
        if await page.evaluate("document.activeElement.id") == wanted:
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"{wanted} is not reached by the tab key")


async def test_more_images_than_a_page(cache: CacheRig, hub: FakeHub, open_page: Open) -> None:
    for number in range(25):
        hub.add_image(f"acme/app{number:02}", "latest")
        await cache.get_manifest(f"acme/app{number:02}", "latest")
    async with open_page(cache.app.admin_url) as page:
        rows = page.locator("#images tbody tr")
        await expect(rows).to_have_count(20)
        await page.locator("#images-more").click()
        await expect(rows).to_have_count(25)
        await expect(page.locator("#images-more")).to_be_hidden()


async def test_what_is_unknown_is_said(tmp_path: Path, hub: FakeHub, open_page: Open) -> None:
    async with governed(hub, tmp_path) as cache, open_page(cache.app.admin_url) as page:
        await live(page)
        await expect(page.locator('#quotas [data-part="of"]')).to_have_text("nothing heard of a quota yet")
        await expect(page.locator('#quotas [data-part="remaining"]')).to_have_text("")
        await expect(page.locator('#quotas [data-part="bar"]')).to_be_hidden()
        await expect(page.locator("#hit-ratio")).to_have_text("unknown")
        await expect(page.locator("#first")).to_be_visible()

        hub.rate_limit = None
        hub.add_image("acme/app", "latest")
        await cache.get_manifest("acme/app", "latest")
        await expect(page.locator('#quotas [data-part="of"]')).to_have_text("no limit is sent for this account")


async def test_it_says_that_the_cache_is_gone_and_goes_on_when_it_is_back(
    hub: FakeHub, tmp_path: Path, open_page: Open
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {"admin": AdminOptions(listen=Address("127.0.0.1", port))}
    async with (
        CacheRig(hub.url, tmp_path / "cache", options=options) as cache,
        open_page(cache.app.admin_url, forgiven="ERR_") as page,
    ):
        await live(page)
        await cache.stop()
        await expect(page.locator("#lost")).to_contain_text("Connection lost, trying again")
        hub.add_image("acme/app", "latest")

        await cache.start()
        await cache.get_manifest("acme/app", "latest")

        await expect(page.locator("#lost")).to_be_hidden()
        await expect(page.locator('#quotas [data-part="remaining"]')).to_have_text("99")
