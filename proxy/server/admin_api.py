"""What the admin listener answers about what is stored, as JSON, and what it changes there on request.

    GET    /api/repositories      ?match= ?after= ?limit=    repositories that hold something, by name
    GET    /api/vanished          likewise                   what upstream does not give any more
    GET    /api/images/NAME       ?after= ?limit=            a repository and its tags
    GET    /api/images/NAME:TAG, NAME@DIGEST                 an image and all its parts
    GET    /api/history/NAME[:TAG|@DIGEST] ?after= ?limit=   what tags were before, newest first
    GET    /api/pins              ?after= ?limit=            repositories that are never evicted
    PUT    /api/pins/NAME         DELETE                     pin, unpin
    POST   /api/purge             {"image": NAME[:TAG|@DIGEST]}, {"repository": NAME} or {"older_than": SECONDS}, each
                                  with "dry_run": true to be told only; again while the answer has "complete": false
    POST   /api/gc                {"dry_run": true}          evict now what has to go; or what would, and why
    GET    /api/scrub             POST {"rate": BYTES}       how the scrub is, begin one (without a rate: unbounded)
    DELETE /api/scrub                                        end it

NAME is what people write: `alpine`, `owner/app`, `ghcr.io/owner/app`. A page has `next`, which is the `after` of the
one that follows, or null. Errors are `{"error": "..."}`.

The listener asks nobody for a password. Whoever reaches it may read; to change something, one has to ask from this
machine, unless the configuration says otherwise. A web page in somebody's browser may change nothing in any case: what
a page could send (`Origin`, `Sec-Fetch-Site`, a form) is refused.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal

from aiohttp import web

from proxy.housekeeping.house import House, NotKeeper, Refused
from proxy.housekeeping.inspection import NotKnown
from proxy.housekeeping.listing import MAX_PAGE
from proxy.oci.errors import RegistryError
from proxy.server.peers import is_local

log = logging.getLogger(__name__)

PREFIX: Final = "/api/"

_PAGE: Final = 100
_BODY_BYTES: Final = 64 * 1024
_MAX_SECONDS: Final = 1000 * 365 * 86400.0
_MAX_RATE: Final = 1 << 50
_MAX_TEXT: Final = 1024
_JSON: Final = "application/json"
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Document = dict[str, Any]


class AdminApi:
    """The handlers, each an answer of the house. `changes` tells who may change something by the configuration."""

    def __init__(self, house: House, changes: Callable[[], Literal["local", "all"]]) -> None:
        self._house = house
        self._changes = changes

    def routes(self) -> list[web.RouteDef]:
        """For the admin application."""
        return [
            web.get("/api/repositories", self._repositories),
            web.get("/api/vanished", self._vanished),
            web.get("/api/images/{name:.+}", self._image),
            web.get("/api/history/{name:.+}", self._history),
            web.get("/api/pins", self._pins),
            web.put("/api/pins/{name:.+}", self._changing(self._pin)),
            web.delete("/api/pins/{name:.+}", self._changing(self._unpin)),
            web.post("/api/purge", self._changing(self._purge)),
            web.post("/api/gc", self._changing(self._collect)),
            web.get("/api/scrub", self._scrub),
            web.post("/api/scrub", self._changing(self._begin_scrub)),
            web.delete("/api/scrub", self._changing(self._cancel_scrub)),
        ]

    def _changing(self, handler: _Handler) -> _Handler:
        """What changes something, for those who may."""

        async def checked(request: web.Request) -> web.StreamResponse:
            _check_no_web_page(request)
            if self._changes() == "local" and not _is_from_here(request):
                raise web.HTTPForbidden(
                    text='changes are taken from this machine only; [admin] changes = "all" takes them from everywhere'
                )
            return await handler(request)

        return checked

    async def _repositories(self, request: web.Request) -> web.Response:
        return _answer(await self._house.repositories(*_page(request), _text(request.query, "match")))

    async def _vanished(self, request: web.Request) -> web.Response:
        return _answer(await self._house.vanished(*_page(request), _text(request.query, "match")))

    async def _image(self, request: web.Request) -> web.Response:
        return _answer(await self._house.show(self._house.parse(request.match_info["name"]), *_page(request)))

    async def _history(self, request: web.Request) -> web.Response:
        return _answer(await self._house.history(self._house.parse(request.match_info["name"]), *_page(request)))

    async def _pins(self, request: web.Request) -> web.Response:
        return _answer(await self._house.pins(*_page(request)))

    async def _pin(self, request: web.Request) -> web.Response:
        return _answer(await self._house.pin(self._house.parse(request.match_info["name"])))

    async def _unpin(self, request: web.Request) -> web.Response:
        return _answer(await self._house.unpin(self._house.parse(request.match_info["name"])))

    async def _purge(self, request: web.Request) -> web.Response:
        wanted = await _document(request, {"image", "repository", "older_than", "dry_run"})
        dry_run = _switch(wanted, "dry_run")
        match [each for each in ("image", "repository", "older_than") if each in wanted]:
            case ["image"]:
                asked = self._house.parse(_string(wanted, "image"))
                return _answer(await self._house.purge_image(asked, dry_run=dry_run))
            case ["repository"]:
                asked = self._house.parse(_string(wanted, "repository"))
                return _answer(await self._house.purge_repository(asked, dry_run=dry_run))
            case ["older_than"]:
                seconds = _number(wanted, "older_than", _MAX_SECONDS)
                return _answer(await self._house.purge_unused(seconds, dry_run=dry_run))
            case _:
                raise Refused("name what to purge by one of image, repository and older_than (seconds)")

    async def _collect(self, request: web.Request) -> web.Response:
        wanted = await _document(request, {"dry_run"})
        return _answer(await self._house.collect(dry_run=_switch(wanted, "dry_run")))

    async def _scrub(self, request: web.Request) -> web.Response:
        return _answer(self._house.scrub())

    async def _begin_scrub(self, request: web.Request) -> web.Response:
        wanted = await _document(request, {"rate"})
        rate = None if wanted.get("rate") is None else int(_number(wanted, "rate", _MAX_RATE))
        return _answer(self._house.begin_scrub(rate or None), status=202)

    async def _cancel_scrub(self, request: web.Request) -> web.Response:
        return _answer(await self._house.cancel_scrub())


@web.middleware
async def api_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Below /api/, errors are JSON."""
    if not request.path.startswith(PREFIX):
        return await handler(request)
    try:
        return await handler(request)
    except RegistryError as error:
        return _error(error.status, error.message)
    except NotKnown as error:
        return _error(404, str(error))
    except Refused as error:
        return _error(400, str(error))
    except NotKeeper as error:
        return _error(409, str(error))
    except (sqlite3.Error, OSError) as error:
        log.error("what is stored cannot be looked at: %s", error)
        return _error(503, f"what is stored cannot be looked at: {error}")
    except web.HTTPException as error:
        allowed = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return _error(error.status, error.text or error.reason, allowed)


def _is_from_here(request: web.Request) -> bool:
    transport = request.transport
    return transport is not None and is_local(
        transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    )


def _check_no_web_page(request: web.Request) -> None:
    """Raises HTTPForbidden. Browsers send one of these with everything that could change something (Fetch standard)."""
    if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
        raise web.HTTPForbidden(
            text="web pages may not change anything here: send it without Origin and Sec-Fetch-Site"
        )


async def _document(request: web.Request, known: set[str]) -> Document:
    """The object that was sent. Raises HTTPException and Refused."""
    if request.content_type != _JSON:
        raise web.HTTPUnsupportedMediaType(
            text=f"send JSON and say so: curl -H 'Content-Type: {_JSON}' -d '{{...}}' (a web form could not)"
        )
    if request.content_length is not None and request.content_length > _BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(_BODY_BYTES, request.content_length)
    try:
        document = json.loads(await request.read() or b"{}")
    except (ValueError, RecursionError):
        raise Refused("what was sent is no JSON") from None
    if not isinstance(document, dict):
        raise Refused("what was sent is no JSON object")
    if unknown := sorted(document.keys() - known):
        raise Refused(f"{unknown[0]!r} is not known here; known are: {', '.join(sorted(known))}")
    return document


def _page(request: web.Request) -> tuple[str, int]:
    """`after` and `limit`. Raises Refused."""
    limit = request.query.get("limit", str(_PAGE))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MAX_PAGE):
        raise Refused(f"limit is a number from 1 to {MAX_PAGE}")
    return _text(request.query, "after"), int(limit)


def _text(query: Mapping[str, str], field: str) -> str:
    text = query.get(field, "")
    if len(text) > _MAX_TEXT:
        raise Refused(f"{field} is too long")
    return text


def _string(document: Document, field: str) -> str:
    if not isinstance(document[field], str):
        raise Refused(f"{field} is a name, as text")
    return str(document[field])


def _switch(document: Document, field: str) -> bool:
    if not isinstance(document.get(field, False), bool):
        raise Refused(f"{field} is true or false")
    return bool(document.get(field, False))


def _number(document: Document, field: str, most: float) -> float:
    value = document[field]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise Refused(f"{field} is a number from 0 to {most:g}")
    return value


def _answer(document: Document, status: int = 200) -> web.Response:
    return web.json_response(document, status=status, headers=_HEADERS)


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = {"error": message}
    return web.json_response(body, status=status, headers=_HEADERS | dict(headers or {}))
