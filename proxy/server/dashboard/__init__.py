"""The page at `/` of the admin listener: one document, a style sheet and modules, as they are in `assets`.

All it shows comes from /api/, and is put in as text. It changes nothing. Nothing is loaded from elsewhere, and nothing
inline is run: the policy says so, for the case that a name of a repository should ever become markup.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from aiohttp import web

_MODULES: Final = ("dashboard", "status", "quota", "lists", "setup", "server", "parts", "chart", "format")
_TYPES: Final = {
    "index.html": "text/html",
    "dashboard.css": "text/css",
    "icon.svg": "image/svg+xml",
    **{f"{name}.js": "text/javascript" for name in _MODULES},
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Dashboard:
    """Reads the assets once."""

    def __init__(self) -> None:
        assets = files(__name__) / "assets"
        self._assets = {name: (assets / name).read_bytes() for name in _TYPES}

    def routes(self) -> list[web.RouteDef]:
        """For the admin application."""
        return [web.get("/", self._page), web.get("/assets/{name}", self._asset)]

    async def _page(self, request: web.Request) -> web.Response:
        return self._answer("index.html")

    async def _asset(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self._assets:
            raise web.HTTPNotFound
        return self._answer(name)

    def _answer(self, name: str) -> web.Response:
        return web.Response(body=self._assets[name], content_type=_TYPES[name], charset="utf-8", headers=_HEADERS)
