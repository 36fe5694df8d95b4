"""The CDN: streams blobs from the registry's own storage to whoever holds a signed URL, and to nobody with a token."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from aiohttp import web

from .faults import Cut, Faults
from .ledger import Ledger
from .settings import Settings
from .signing import Signer

_CHUNK: Final = 1024 * 1024
_PREFIX: Final = "/registry-v2/docker/registry/v2/blobs/sha256"


def blob_path(digest: str) -> str:
    """Return a blob's path on the CDN."""
    hexadecimal = digest.removeprefix("sha256:")
    return f"{_PREFIX}/{hexadecimal[:2]}/{hexadecimal}/data"


def cdn_app(settings: Settings, ledger: Ledger, faults: Faults, signer: Signer) -> web.Application:
    """Build the CDN."""
    storage = Path(settings.storage, "docker/registry/v2/blobs/sha256")

    async def get_blob(request: web.Request) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        if "Authorization" in request.headers:
            ledger.violations.append("Authorization was sent to the CDN")
            return _error(400, "InvalidArgument", "Only one auth mechanism allowed")
        if not signer.accepts(path, query):
            if signer.is_requoted(path, query):
                ledger.violations.append("a signed URL was re-quoted")
            return _error(403, "SignatureDoesNotMatch", "The request signature does not match")
        if request.headers.get("Accept-Encoding", "identity") != "identity":
            ledger.violations.append("a blob was asked for in another encoding than identity")

        hexadecimal = request.match_info["hex"]
        file = storage / hexadecimal[:2] / hexadecimal / "data"
        return await _send(request, file, f"sha256:{hexadecimal}", ledger, faults)

    app = web.Application()
    app.router.add_get(_PREFIX + "/{prefix}/{hex:[0-9a-f]{64}}/data", get_blob, allow_head=False)
    return app


async def _send(request: web.Request, file: Path, digest: str, ledger: Ledger, faults: Faults) -> web.StreamResponse:
    size = _size(file)
    asked = request.http_range
    start, stop, _ = asked.indices(size)
    if asked.start is not None and asked.start >= size:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
    response = web.StreamResponse(status=206 if "Range" in request.headers else 200)
    if response.status == 206:
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    response.content_length = stop - start
    response.content_type = "application/octet-stream"
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["Vary"] = "Accept-Encoding"
    # Never the digest: a CDN names the object by an MD5 of its own.
    response.headers["Etag"] = f'"{hashlib.md5(digest.encode(), usedforsecurity=False).hexdigest()}"'

    ledger.blob_gets[digest] += 1
    await response.prepare(request)
    sent = 0
    for chunk in _chunks(file, start, stop):
        rest = memoryview(chunk)
        while rest:
            try:
                count = await faults.admit(digest, sent, len(rest))
            except Cut:
                assert request.transport is not None
                request.transport.abort()
                return response
            await response.write(bytes(rest[:count]))
            ledger.blob_bytes[digest] += count
            sent += count
            rest = rest[count:]
    await response.write_eof()
    return response


def _size(file: Path) -> int:
    return file.stat().st_size


def _chunks(file: Path, start: int, stop: int) -> Iterator[bytes]:
    with file.open("rb") as content:
        content.seek(start)
        while start < stop:
            chunk = content.read(min(_CHUNK, stop - start))
            start += len(chunk)
            yield chunk


def _error(status: int, code: str, message: str) -> web.Response:
    # Object stores answer in XML whatever the client accepts.
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return web.Response(status=status, text=body, content_type="application/xml")
