"""A browser for the tests of this folder, and pages of it that must not complain."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal, Protocol

import pytest
from playwright.async_api import Browser, Page, async_playwright

from tests.programs import require_program

DESKTOP, PHONE = 1280, 390
HEIGHT = 844

Scheme = Literal["light", "dark"]


class Open(Protocol):
    """Opens an address in a fresh profile; fails at the end if the page complained, but for what `forgiven` names."""

    def __call__(
        self, url: str, width: int = DESKTOP, scheme: Scheme = "light", forgiven: str | None = None
    ) -> AbstractAsyncContextManager[Page]: ...


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Headless. Its sandbox does not work for root, and it opens nothing but our own page."""
    require_program("chromium", "chromium")
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield running
        await running.close()


@pytest.fixture
def open_page(browser: Browser) -> Open:
    """A page as somebody sees it."""

    @asynccontextmanager
    async def opened(
        url: str, width: int = DESKTOP, scheme: Scheme = "light", forgiven: str | None = None
    ) -> AsyncIterator[Page]:
        complaints: list[str] = []
        context = await browser.new_context(
            viewport={"width": width, "height": HEIGHT}, color_scheme=scheme, reduced_motion="reduce"
        )
        context.set_default_timeout(20_000)
        page = await context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        await page.goto(url)
        yield page
        await context.close()
        assert [each for each in complaints if forgiven is None or forgiven not in each] == []

    return opened
