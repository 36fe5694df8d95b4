"""GET /api/setup?address=HOST:PORT: what to put where for every client, to be shown and copied.

    url       of the cache, as the lines name it
    clients   [{name, summary, parts [{path, about, content}], restart, check, notes}]; path is null for what goes onto
              a command line, restart is null where nothing has to be told

Without an address the cache is taken to be where the admin listener was reached, on the port of clients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import web

from proxy.setup import CLIENTS, BadCacheUrl, CacheUrl, Setup, cache_url, make_setup

_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class SetupApi:
    """`place` is scheme and port of clients; `registries` are those that the cache serves, the default one first."""

    def __init__(self, place: Callable[[], tuple[str, int]], registries: Callable[[], Sequence[str]]) -> None:
        self._place = place
        self._registries = registries

    def routes(self) -> list[web.RouteDef]:
        """For the admin application."""
        return [web.get("/api/setup", self._setup)]

    async def _setup(self, request: web.Request) -> web.Response:
        try:
            scheme, port = self._place()
            url = cache_url(request.query.get("address") or self._reached(request, port), scheme)
        except BadCacheUrl as error:
            return web.json_response({"error": str(error)}, status=400, headers=_HEADERS)
        registries = self._registries()
        clients = [_client(make_setup(name, url, registries), each.summary) for name, each in CLIENTS.items()]
        return web.json_response({"url": url, "clients": clients}, headers=_HEADERS)

    def _reached(self, request: web.Request, port: int) -> str:
        """Raises BadCacheUrl."""
        host = CacheUrl.parse(cache_url(request.headers.get("Host"), "http")).host
        return f"{host}:{port}"


def _client(setup: Setup, summary: str) -> dict[str, object]:
    return {
        "name": setup.client,
        "summary": summary,
        "parts": [{"path": part.path, "about": part.about, "content": part.content} for part in setup.parts],
        "restart": setup.restart,
        "check": setup.check,
        "notes": list(setup.notes),
    }
