"""What the admin listener answers about quotas, as JSON.

    GET /api/quota                                                what is known and expected: see `proxy.quota.report`
    GET /api/top      ?by=image|client|agent &period=24h &order=pulls|bytes &limit=20    who costs most: likewise
    GET /api/explain/NAME[:TAG|@DIGEST]                           what a pull of it would do: see `proxy.pull.explain`

Errors are `{"error": "..."}`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, get_args

from aiohttp import web

from proxy.oci.images import LATEST, ImageName
from proxy.pull.explain import Explainer
from proxy.quota.report import Report
from proxy.store.index.ledger import KEPT_SECONDS, Dimension, Order
from proxy.units import parse_duration

MAX_ROWS: Final = 1000
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class QuotaApi:
    """The handlers. `explainer` is that of the configuration that answers now."""

    def __init__(self, report: Report, explainer: Callable[[], Explainer]) -> None:
        self._report = report
        self._explainer = explainer

    def routes(self) -> list[web.RouteDef]:
        """For the admin application."""
        return [
            web.get("/api/quota", self._quota),
            web.get("/api/top", self._top),
            web.get("/api/explain/{name:.+}", self._explain),
        ]

    async def _quota(self, request: web.Request) -> web.Response:
        return _answer(self._report.quota())

    async def _top(self, request: web.Request) -> web.Response:
        by: Dimension = _choice(request, "by", get_args(Dimension))
        order: Order = _choice(request, "order", get_args(Order))
        return _answer(await self._report.top(by, order, _period(request), _limit(request)))

    async def _explain(self, request: web.Request) -> web.Response:
        explainer = self._explainer()
        image = ImageName.parse(request.match_info["name"], explainer.registries)
        return _answer(await explainer.explain(image.repository, image.reference or LATEST))


def _choice(request: web.Request, field: str, words: tuple[str, ...]) -> Any:
    """One of these words, the first one if none is given. Raises HTTPBadRequest."""
    word = request.query.get(field, words[0])
    if word not in words:
        raise web.HTTPBadRequest(text=f"{field} is one of {', '.join(words)}")
    return word


def _period(request: web.Request) -> float:
    """Seconds. Raises HTTPBadRequest."""
    try:
        seconds = parse_duration(request.query.get("period", "24h"))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= KEPT_SECONDS:
        raise web.HTTPBadRequest(text='period is a duration such as "90m", "24h" or "7d", of 35 days at most')
    return seconds


def _limit(request: web.Request) -> int:
    """Raises HTTPBadRequest."""
    text = request.query.get("limit", "20")
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_ROWS):
        raise web.HTTPBadRequest(text=f"limit is a number from 1 to {MAX_ROWS}")
    return int(text)


def _answer(document: dict[str, Any]) -> web.Response:
    return web.json_response(document, headers=_HEADERS)
