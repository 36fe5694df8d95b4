"""GET /api/events: what the dashboard shows, as server-sent events (HTML standard, 9.2), while somebody looks.

One event a section, named like it, its document as data: all at first, then each time it has changed. A document is
made once for all who look, and not at all while nobody does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from aiohttp import web

INTERVAL: Final = 1.0
"""Seconds from one look at the sections to the next."""
MAX_LISTENERS: Final = 32
_WRITE_SECONDS: Final = 10.0
_RETRY_MILLISECONDS: Final = 1000
_HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx would collect the events first.
}

Section = Callable[[], Mapping[str, object]]


class Feed:
    """Tells `sections` to everybody who listens, at most `most` at a time, until `aclose`."""

    def __init__(self, sections: Mapping[str, Section], most: int = MAX_LISTENERS) -> None:
        self._sections = sections
        self._most = most
        self._listeners = 0
        self._made: dict[str, str] = {}
        self._made_at = float("-inf")
        self._closing = asyncio.Event()

    def __len__(self) -> int:
        """How many listen."""
        return self._listeners

    def routes(self) -> list[web.RouteDef]:
        """For the admin application."""
        return [web.get("/api/events", self._listen, allow_head=False)]

    async def aclose(self, application: object = None) -> None:
        """Every stream ends, and its listener may ask whoever comes after us."""
        self._closing.set()

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        if self._listeners >= self._most or self._closing.is_set():
            raise web.HTTPServiceUnavailable(text=f"{self._listeners} listen already", headers={"Retry-After": "10"})
        self._listeners += 1
        try:
            return await self._tell(request)
        finally:
            self._listeners -= 1

    async def _tell(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers=_HEADERS)
        told: dict[str, str] = {}
        try:
            await response.prepare(request)
            await response.write(f"retry: {_RETRY_MILLISECONDS}\n\n".encode())
            while not self._closing.is_set():
                news = "".join(self._news(told))
                async with asyncio.timeout(_WRITE_SECONDS):
                    await response.write(news.encode())
                await self._pause()
        except ConnectionError:
            pass  # Nobody looks any more.
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()  # Connected, but takes nothing.
        return response

    def _news(self, told: dict[str, str]) -> Iterator[str]:
        """The events of what has changed since `told`, which is brought up to date."""
        for name, data in self._documents().items():
            if told.get(name) != data:
                told[name] = data
                yield f"event: {name}\ndata: {data}\n\n"

    def _documents(self) -> dict[str, str]:
        """As text; those of half an interval ago are new enough for whoever asks now."""
        now = asyncio.get_running_loop().time()
        if now - self._made_at >= INTERVAL / 2:
            self._made = {name: json.dumps(section()) for name, section in self._sections.items()}
            self._made_at = now
        return self._made

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(INTERVAL):
                await self._closing.wait()
        except TimeoutError:
            pass
