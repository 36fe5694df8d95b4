"""The client listener: parse, ask, answer. Also the one place where an error becomes a response.

A handler of its own on aiohttp's low-level server: the paths of a registry are read from the right, which no table of
routes does, and a hit costs half of what it would behind one (PERFORMANCE 1).
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import Final

from aiohttp import HttpVersion11, web
from multidict import CIMultiDict

from proxy.metrics import Metrics
from proxy.oci.errors import RegistryError, Unavailable, Unsupported
from proxy.oci.names import Digest
from proxy.oci.ranges import parse_range
from proxy.policy.quota.purpose import Asker, agent_kind
from proxy.pull import Pull
from proxy.server import responses
from proxy.server.access_log import Exchange
from proxy.server.accounting import Accounting
from proxy.server.carrier import Carrier
from proxy.server.connection import Connection
from proxy.server.floor import TooSlow, cut
from proxy.server.memo import MAX_REQUEST_BYTES, Memo
from proxy.server.pump import Pump, Sendable
from proxy.server.setup_pages import setup_page
from proxy.server.targets import (
    BaseTarget,
    BlobTarget,
    CatalogTarget,
    ListingTarget,
    ManifestTarget,
    SetupTarget,
    Targets,
)

log = logging.getLogger(__name__)

_READ_ONLY: Final = "this is a pull-through cache: it answers GET and HEAD; push to the registry itself"


class InternalError(RegistryError):
    """A defect of ours, already logged."""

    code, status = "UNKNOWN", 500


class Routes:
    """Answers the requests of clients: `max_requests` at the same time, 0 for any number; more get 503 at once."""

    def __init__(
        self,
        targets: Targets,
        pull: Pull,
        pump: Pump,
        metrics: Metrics,
        accounting: Accounting,
        memo: Memo | None = None,
        max_requests: int = 0,
    ) -> None:
        self._memo = memo
        self._max_requests = max_requests or sys.maxsize
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._targets = targets
        self._pull = pull
        self._pump = pump
        self._metrics = metrics
        self._accounting = accounting

    async def idle(self) -> None:
        """Wait until no request is being answered."""
        await self._idle.wait()

    async def drain(self) -> None:
        """Wait for that, and from now on end each connection with its answer, so that busy ones end too."""
        self._draining = True
        await self.idle()

    def repeat(self, request: bytes, client: str) -> bytes | None:
        """The whole answer to these bytes of a whole request, if they were answered just now."""
        return self._memo.answer(request, client) if self._memo is not None and not self._draining else None

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, count it and log it."""
        asker = Asker(request.remote or "-", agent_kind(request.headers.get("User-Agent", "")))
        exchange = Exchange(asker, request.method, started=time.perf_counter())
        headers = responses.common_headers()
        if self._draining:
            headers["Connection"] = "close"
            request.protocol.close()
        self._active += 1
        self._idle.clear()
        try:
            if self._active > self._max_requests:
                raise Unavailable("this cache answers as many requests as it may", retry_after=1)
            return await self._answer(request, exchange, headers)
        except RegistryError as error:
            return self._failed(request, exchange, headers, error)
        except ConnectionError as error:
            exchange.aborted = True
            if isinstance(error, TooSlow) and request.transport is not None:
                self._metrics.connection_refused("slow_reader")
                cut(request.transport)
            return _broken_off(request)
        except asyncio.CancelledError:
            exchange.aborted = True
            raise
        except Exception:
            log.exception("answering %s %s failed", exchange.method, exchange.subject)
            return self._failed(request, exchange, headers, InternalError("an internal error; see the cache's log"))
        finally:
            self._accounting.ended(exchange)
            self._active -= 1
            if not self._active:
                self._idle.set()

    async def _answer(
        self, request: web.BaseRequest, exchange: Exchange, headers: CIMultiDict[str]
    ) -> web.StreamResponse:
        namespace = self._targets.namespace(request.raw_path)
        if namespace is not None:
            headers["OCI-Namespace"] = namespace
        if request.method not in ("GET", "HEAD"):
            raise Unsupported(_READ_ONLY)
        target = self._targets.parse(request.raw_path, namespace)
        match target:
            case ManifestTarget():
                exchange.repository = target.repository
                exchange.kind, exchange.subject = "manifest", f"{target.repository} {target.reference}"
                return await self._manifest(request, exchange, headers.copy(), target)
            case BlobTarget():
                exchange.repository = target.repository
                exchange.kind, exchange.subject = "blob", f"{target.repository} {target.digest}"
                return await self._blob(request, exchange, headers.copy(), target)
            case ListingTarget():
                exchange.repository = target.repository
                exchange.kind, exchange.subject = "listing", f"{target.repository} {target.subject or 'tags'}"
                return await self._listing(request, exchange, headers.copy(), target)
            case CatalogTarget():
                names, more = await self._pull.catalog(target.count, target.last)
                return self._whole(exchange, responses.catalog_response(headers, names, more, target.count))
            case BaseTarget():
                exchange.kind = "ping"
                return self._whole(exchange, responses.base_response(headers))
            case SetupTarget():
                host = request.headers.get("Host")
                page = setup_page(target.client, host, request.scheme, self._targets.registries, headers)
                return self._whole(exchange, page)

    async def _manifest(
        self, request: web.BaseRequest, exchange: Exchange, headers: CIMultiDict[str], target: ManifestTarget
    ) -> web.StreamResponse:
        accept = request.headers.getall("Accept", ())
        if request.method == "HEAD":
            found, outcome = await self._pull.describe_manifest(
                target.repository, target.reference, accept, exchange.asker
            )
        else:
            manifest, outcome = await self._pull.manifest(target.repository, target.reference, accept, exchange.asker)
            found = manifest.descriptor
        exchange.outcome = outcome
        responses.manifest_headers(headers, found, target.reference, outcome)
        responses.pass_on_warnings(headers, self._pull.warnings(target.repository, found.digest))
        if responses.matches(request.headers.get("If-None-Match"), found.digest):
            return self._whole(exchange, responses.not_modified(headers))
        if request.method == "HEAD":
            responses.length_headers(headers, found.size)
            return await self._headers_only(request, exchange, responses.without_body(headers), found.digest)
        whole = self._whole(exchange, responses.with_body(headers, manifest.body))
        await self._memorise(request, exchange, whole, found.digest)
        return whole

    async def _blob(
        self, request: web.BaseRequest, exchange: Exchange, headers: CIMultiDict[str], target: BlobTarget
    ) -> web.StreamResponse:
        if request.method == "HEAD":
            size, exchange.outcome = await self._pull.blob_size(target.repository, target.digest)
            responses.blob_headers(headers, target.digest, exchange.outcome)
            if responses.matches(request.headers.get("If-None-Match"), target.digest):
                return self._whole(exchange, responses.not_modified(headers))
            responses.length_headers(headers, size)
            return await self._headers_only(request, exchange, responses.without_body(headers), target.digest)
        async with self._pull.blob(target.repository, target.digest) as answer:
            exchange.outcome = answer.outcome
            responses.blob_headers(headers, target.digest, answer.outcome)
            if responses.matches(request.headers.get("If-None-Match"), target.digest):
                return self._whole(exchange, responses.not_modified(headers))
            part = parse_range(responses.range_of(request.headers, target.digest), answer.size)
            start, stop = (part.start, part.stop) if part else (0, answer.size)
            responses.length_headers(headers, answer.size, part)
            if isinstance(answer.content, bytes):
                whole = self._whole(exchange, responses.with_body(headers, answer.content[start:stop], part))
                await self._memorise(request, exchange, whole, target.digest)
                return whole
            response = responses.without_body(headers, part)
            return await self._send(request, exchange, response, answer.content, start, stop)

    async def _listing(
        self, request: web.BaseRequest, exchange: Exchange, headers: CIMultiDict[str], target: ListingTarget
    ) -> web.StreamResponse:
        listing, exchange.outcome = await self._pull.listing(target.repository, target.subject, target.query)
        responses.outcome_headers(headers, exchange.outcome)
        responses.listing_headers(headers, listing, request.raw_path.partition("?")[0])
        return self._whole(exchange, responses.with_body(headers, listing.body))

    async def _send(
        self,
        request: web.BaseRequest,
        exchange: Exchange,
        response: web.StreamResponse,
        content: Sendable,
        start: int,
        stop: int,
    ) -> web.StreamResponse:
        """Send a body through the pump."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has left")
        writer = await response.prepare(request)
        assert writer is not None
        await writer.drain()  # Until all is sent (see Connection): nothing may overtake the headers.
        self._begun(exchange, response.status)
        if isinstance(transport, Carrier):
            await transport.carry(content, start, stop, exchange.moved)
        else:
            await self._pump.send(transport, content, start, stop, exchange.moved)
        await response.write_eof()
        return response

    async def _headers_only(
        self, request: web.BaseRequest, exchange: Exchange, response: web.StreamResponse, digest: Digest
    ) -> web.StreamResponse:
        self._begun(exchange, response.status)
        await self._memorise(request, exchange, response, digest)
        await response.prepare(request)
        await response.write_eof()
        return response

    def _whole(self, exchange: Exchange, response: web.Response) -> web.Response:
        """A response that aiohttp sends in one piece."""
        self._begun(exchange, response.status)
        if exchange.method != "HEAD" and isinstance(response.body, bytes):
            exchange.sent = len(response.body)
        return response

    async def _memorise(
        self, request: web.BaseRequest, exchange: Exchange, response: web.StreamResponse, digest: Digest
    ) -> None:
        """Keep an answer for those who ask the same in a moment, if it is one that can be given again."""
        connection: object = request.protocol
        assert isinstance(connection, Connection | Carrier)
        if self._memo is None or connection.alone is None or len(connection.alone) > MAX_REQUEST_BYTES:
            return
        if exchange.outcome is None or not exchange.outcome.is_plain_hit:
            return
        if request.version != HttpVersion11 or not request.keep_alive or self._draining:
            return
        if isinstance(connection, Carrier):
            return connection.keep(digest, exchange, self._memo.until(exchange.outcome))
        await response.prepare(request)
        self._memo.keep(connection.alone, response, digest, exchange)

    def _failed(
        self, request: web.BaseRequest, exchange: Exchange, headers: CIMultiDict[str], error: RegistryError
    ) -> web.StreamResponse:
        exchange.error = error.code
        if not exchange.status:
            return self._whole(exchange, responses.error_response(error, headers))
        log.warning("%s: the response was broken off: %s", exchange.subject, error.message)
        return _broken_off(request)

    def _begun(self, exchange: Exchange, status: int) -> None:
        """The headers leave now."""
        exchange.status = status
        exchange.first_byte_seconds = time.perf_counter() - exchange.started


def _broken_off(request: web.BaseRequest) -> web.StreamResponse:
    """End the connection without another byte: from the first byte of a body on, that is how failure is told.

    aiohttp wants a response of every handler, and logs a traceback for an exception; this one it finds that it cannot
    send any more, in silence.
    """
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
