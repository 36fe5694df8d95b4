"""What clients see: the response contract (PROTOCOL 10), in one place."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlencode

from aiohttp import web
from multidict import CIMultiDict

from proxy.oci.errors import RangeInvalid, RegistryError
from proxy.oci.listings import Listing
from proxy.oci.manifests import Descriptor
from proxy.oci.names import Digest, Reference
from proxy.oci.ranges import ByteRange
from proxy.pull.outcome import Outcome

_IMMUTABLE: Final = "public, max-age=31536000, immutable"
MAX_WARNING_BYTES: Final = 4096
"""OCI distribution spec, "Warnings": no more than this altogether."""

_EXPOSED_SERVER: Final = "pullthrough"


def common_headers() -> CIMultiDict[str]:
    """What every answer carries."""
    return CIMultiDict({"Docker-Distribution-Api-Version": "registry/2.0", "Server": _EXPOSED_SERVER})


def base_response(headers: CIMultiDict[str]) -> web.Response:
    """`/v2/` is always answered here: 200, and never a challenge (PROTOCOL 4.5)."""
    headers["Content-Type"] = "application/json"
    return web.Response(body=b"{}", headers=headers)


def error_response(error: RegistryError, headers: CIMultiDict[str]) -> web.Response:
    """An error in the specification's JSON."""
    headers["Content-Type"] = "application/json"
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if error.status == 405:
        headers["Allow"] = "GET, HEAD"
    if isinstance(error, RangeInvalid) and isinstance(error.detail, dict):
        headers["Content-Range"] = f"bytes */{error.detail['size']}"
    return web.Response(status=error.status, body=error.body(), headers=headers)


def outcome_headers(headers: CIMultiDict[str], outcome: Outcome) -> None:
    """How the answer came about."""
    headers["Cache-Status"] = outcome.cache_status
    if outcome.age is not None:
        headers["Age"] = str(outcome.age)
    if outcome.warning is not None:
        headers["Warning"] = outcome.warning


def content_headers(headers: CIMultiDict[str], digest: Digest, media_type: str) -> None:
    """What names the content."""
    headers["Content-Type"] = media_type
    headers["Docker-Content-Digest"] = str(digest)
    headers["ETag"] = f'"{digest}"'


def manifest_headers(headers: CIMultiDict[str], found: Descriptor, asked: Reference, outcome: Outcome) -> None:
    """A manifest's headers; one asked for by tag may change at any time."""
    content_headers(headers, found.digest, found.media_type)
    outcome_headers(headers, outcome)
    headers["Cache-Control"] = _IMMUTABLE if isinstance(asked, Digest) else "no-cache"


def blob_headers(headers: CIMultiDict[str], digest: Digest, outcome: Outcome) -> None:
    """A blob's headers."""
    content_headers(headers, digest, "application/octet-stream")
    outcome_headers(headers, outcome)
    headers["Accept-Ranges"] = "bytes"
    headers["Cache-Control"] = _IMMUTABLE


def length_headers(headers: CIMultiDict[str], size: int | None, part: ByteRange | None = None) -> None:
    """How long the body is, for GET and HEAD alike; `size` is the whole content's, in bytes."""
    if part is not None:
        headers["Content-Length"], headers["Content-Range"] = str(len(part)), part.content_range(size or 0)
    elif size is not None:
        headers["Content-Length"] = str(size)


def without_body(headers: CIMultiDict[str], part: ByteRange | None = None) -> web.StreamResponse:
    """A response whose body is sent apart from it or, for HEAD, not at all."""
    return web.StreamResponse(status=200 if part is None else 206, headers=headers)


def with_body(headers: CIMultiDict[str], body: bytes, part: ByteRange | None = None) -> web.Response:
    """A response of content that we have in memory."""
    return web.Response(status=200 if part is None else 206, body=body, headers=headers)


def not_modified(headers: CIMultiDict[str]) -> web.Response:
    """The client has this already."""
    headers.popall("Content-Type", None)
    return web.Response(status=304, headers=headers)


def matches(if_none_match: str | None, digest: Digest) -> bool:
    """Whether If-None-Match names this digest, with or without quotes and weakness (RFC 9110 section 13.1.2)."""
    if if_none_match is None:
        return False
    tags = {tag.strip().removeprefix("W/").strip('"') for tag in if_none_match.split(",")}
    return "*" in tags or str(digest) in tags


def listing_headers(headers: CIMultiDict[str], listing: Listing, path: str) -> None:
    """A list's headers. The next page is asked for as this one was: the same path, and `ns` if it had one."""
    headers["Content-Type"] = listing.media_type
    headers["Cache-Control"] = "no-cache"
    if listing.filters is not None:
        headers["OCI-Filters-Applied"] = listing.filters
    pass_on_warnings(headers, listing.warnings)
    if listing.next_query is not None:
        namespace = headers.get("OCI-Namespace")
        query = listing.next_query + (f"&{urlencode({'ns': namespace})}" if namespace else "")
        headers["Link"] = f'<{path}?{query}>; rel="next"'


def catalog_response(headers: CIMultiDict[str], names: list[str], more: bool, count: int) -> web.Response:
    """A page of the catalogue, as distribution gives it."""
    headers["Content-Type"] = "application/json"
    if more:
        headers["Link"] = f'</v2/_catalog?{urlencode({"n": count, "last": names[-1]})}>; rel="next"'
    return web.Response(body=json.dumps({"repositories": names}).encode(), headers=headers)


def pass_on_warnings(headers: CIMultiDict[str], warnings: Iterable[str]) -> None:
    """Upstream's warnings beside our own, as many as there is room for."""
    room = MAX_WARNING_BYTES - sum(map(len, headers.getall("Warning", ())))
    for warning in warnings:
        if len(warning) <= room:
            headers.add("Warning", warning)
            room -= len(warning)


def range_of(request_headers: Mapping[str, str], digest: Digest) -> str | None:
    """The Range to honour: none if If-Range names other content than this (RFC 9110 section 13.1.5)."""
    condition = request_headers.get("If-Range")
    if condition is not None and condition.strip() not in (f'"{digest}"', str(digest)):
        return None
    return request_headers.get("Range")
