"""The admin listener: the dashboard, metrics, health, status, and what others add. Clients have no business here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from proxy.metrics import Metrics
from proxy.server.admin_api import api_errors
from proxy.server.dashboard import Dashboard

METRICS: Final = web.AppKey("metrics", Metrics)
READY: Final = web.AppKey[Callable[[], bool]]("ready")
STATUS: Final = web.AppKey[Callable[[], dict[str, object]]]("status")

_WITHOUT_FIGURES: Final = frozenset({"/healthz", "/readyz"})
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def admin_application(
    metrics: Metrics,
    ready: Callable[[], bool],
    status: Callable[[], dict[str, object]],
    settle: Callable[[], Awaitable[None]],
    api: Iterable[web.RouteDef] = (),
) -> web.Application:
    """Everything the admin listener answers, `api` included. `ready` and `status` are asked at each request.

    Whoever may read figures waits for `settle` first, which brings what was counted elsewhere.
    """
    application = web.Application(middlewares=[_settled(settle), api_errors])
    application[METRICS] = metrics
    application[READY] = ready
    application[STATUS] = status
    application.add_routes(
        [
            web.get("/metrics", get_metrics),
            web.get("/healthz", get_health),
            web.get("/readyz", get_ready),
            web.get("/api/status", get_status),
            *Dashboard().routes(),
            *api,
        ]
    )
    return application


def _settled(settle: Callable[[], Awaitable[None]]) -> Middleware:
    @web.middleware
    async def settled(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in _WITHOUT_FIGURES:
            await settle()
        return await handler(request)

    return settled


async def get_metrics(request: web.Request) -> web.Response:
    """The metrics, in the format that the scraper prefers."""
    body, content_type = request.app[METRICS].exposition(request.headers.get("Accept", ""))
    return web.Response(body=body, headers=_HEADERS | {"Content-Type": content_type})


async def get_health(request: web.Request) -> web.Response:
    """200 while the process lives."""
    return web.Response(text="ok\n", headers=_HEADERS)


async def get_ready(request: web.Request) -> web.Response:
    """200 while clients are served, else 503."""
    if request.app[READY]():
        return web.Response(text="ready\n", headers=_HEADERS)
    return web.Response(status=503, text="not ready\n", headers=_HEADERS)


async def get_status(request: web.Request) -> web.Response:
    """The status document."""
    return web.json_response(request.app[STATUS](), headers=_HEADERS)
