"""The CDN: signed URLs, looked at exactly as they arrive, and no other authorization."""

import base64
import hashlib
import itertools
import time
from dataclasses import dataclass
from urllib.parse import quote, unquote

from .answers import Answer, ranged, xml_error
from .ledger import Ledger, Recorded
from .library import Library
from .settings import Settings


@dataclass(slots=True)
class Signature:
    """What a signed URL was issued for."""

    method: str
    digest: str
    expires_at: float


class Cdn:
    """Issues signed URLs, and serves blobs to those who bring one back unchanged."""

    def __init__(self, settings: Settings, library: Library, ledger: Ledger) -> None:
        self._settings = settings
        self._library = library
        self._ledger = ledger
        self._issued: dict[str, Signature] = {}
        self._serial = itertools.count()

    def sign(self, method: str, digest: str) -> str:
        """Return path and query of a URL for one method and one blob."""
        expires_at = time.time() + self._settings.url_lifetime
        query = f"verify={int(expires_at)}-{quote(self._noise(digest), safe='')}"
        self._issued[query] = Signature(method, digest, expires_at)
        algorithm, _, encoded = digest.partition(":")
        return f"/registry-v2/docker/registry/v2/blobs/{algorithm}/{encoded[:2]}/{encoded}/data?{query}"

    def expire(self) -> None:
        """Let every URL issued so far be dead."""
        for signature in self._issued.values():
            signature.expires_at = 0

    def answer(self, request: Recorded) -> Answer:
        """Answer a request for a blob."""
        refusal = self._check(request)
        if refusal is not None:
            return refusal
        assert request.reference is not None
        content = self._library.content_of(request.reference)
        etag = '"' + hashlib.md5(request.reference.encode(), usedforsecurity=False).hexdigest() + '"'
        headers = {
            "content-type": "application/octet-stream",
            "etag": etag,
            "vary": "Accept-Encoding",
            "cache-control": "public, max-age=14400",
            "cf-cache-status": "HIT",
        }
        matches = request.headers.get("If-Range", etag) == etag
        return ranged(content, headers, request.range if matches else None)

    def _check(self, request: Recorded) -> Answer | None:
        """Return why a request is refused; each reason but an expired URL is a mistake of the client."""
        if "Authorization" in request.headers:
            self._violation("Authorization was sent to the CDN")
            message = (
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string "
                "parameter or the Authorization header should be specified"
            )
            return xml_error(400, "InvalidArgument", message)
        encoding = request.headers.get("Accept-Encoding", "identity")
        if encoding != "identity" and self._settings.identity_only:
            self._violation(f"Accept-Encoding at the CDN was {encoding!r}")
            return xml_error(406, "NotAcceptable", "only identity is stored")
        signature = self._issued.get(request.query)
        if signature is None:
            if unquote(request.query) in map(unquote, self._issued):
                self._violation("a signed URL was re-quoted")
            return xml_error(403, "SignatureDoesNotMatch", "The request signature does not match")
        if (signature.method, signature.digest) != (request.method, request.reference):
            return xml_error(403, "SignatureDoesNotMatch", "The request signature does not match")
        if time.time() >= signature.expires_at:
            return xml_error(403, "AccessDenied", "Request has expired")
        return None

    def _violation(self, text: str) -> None:
        self._ledger.violations.append(text)

    def _noise(self, digest: str) -> str:
        """Return base64 that holds `/`, `+` and `=`, the characters that re-quoting spoils."""
        for serial in self._serial:
            noise = base64.b64encode(hashlib.sha256(f"{serial}{digest}".encode()).digest()).decode()
            if "/" in noise and "+" in noise:
                return noise
        raise AssertionError("unreachable: the serial numbers do not end")
