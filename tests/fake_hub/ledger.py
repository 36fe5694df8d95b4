"""What was asked of the hub, and what should not have been."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

from aiohttp.web import BaseRequest
from multidict import CIMultiDictProxy

from .settings import ANONYMOUS

# Names may contain "manifests" or "blobs" as a component, so the verb is looked for from the right.
_REGISTRY_PATH = re.compile(
    r"\A/v2/(?P<repository>.+)/(?P<noun>manifests|blobs|tags|referrers)/(?P<reference>[^/]+)\Z", re.DOTALL
)
_CDN_PATH = re.compile(r"\A/registry-v2/docker/registry/v2/blobs/sha256/[0-9a-f]{2}/(?P<hex>[0-9a-f]{64})/data\Z")
_KINDS = {"manifests": "manifest", "blobs": "blob", "tags": "tags", "referrers": "referrers"}


@dataclass(slots=True, eq=False)
class Recorded:
    """One request, as it came in; `status` and `sent` (bytes of body) are known once it is answered."""

    listener: str  # "registry", "token", "cdn" or "stranger"
    kind: str  # "ping", "manifest", "blob", "tags", "referrers", "catalog", "token", "cdn", "stranger" or "other"
    method: str
    url: str = field(repr=False)
    path: str  # still percent-encoded, without the query
    query: str = field(repr=False)  # still percent-encoded
    headers: CIMultiDictProxy[str] = field(repr=False)
    repository: str | None = None
    reference: str | None = None  # tag or digest
    identity: str = ANONYMOUS
    status: int | None = None
    sent: int = 0

    @property
    def range(self) -> str | None:
        return self.headers.get("Range")


def read_request(listener: str, base_url: str, request: BaseRequest) -> Recorded:
    """Tell what a request is about, without judging it."""
    raw = request.raw_path
    path, _, query = raw.partition("?")
    kind, repository, reference = _read_path(listener, unquote(path))
    return Recorded(
        listener=listener,
        kind=kind,
        method=request.method,
        url=base_url + raw,
        path=path,
        query=query,
        headers=request.headers,
        repository=repository,
        reference=reference,
    )


def _read_path(listener: str, path: str) -> tuple[str, str | None, str | None]:
    if listener == "cdn":
        found = _CDN_PATH.match(path)
        return "cdn", None, f"sha256:{found['hex']}" if found else None
    if listener != "registry":
        return listener, None, None
    if path in ("/v2/", "/v2"):
        return "ping", None, None
    if path == "/v2/_catalog":
        return "catalog", None, None
    found = _REGISTRY_PATH.match(path)
    if found is None:
        return "other", None, None
    return _KINDS[found["noun"]], found["repository"], found["reference"]


class Ledger:
    """Every request in order, and the counts tests ask for."""

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.violations: list[str] = []

    def count(
        self,
        method: str,
        kind: str,
        reference: str | None = None,
        *,
        repository: str | None = None,
        status: int | None = None,
    ) -> int:
        """Count requests of a kind. Those only challenged (401) are left out unless `status` asks for them."""
        return sum(
            1
            for request in self._about(kind, reference)
            if request.method == method
            and (repository is None or request.repository == repository)
            and (request.status != 401 if status is None else request.status == status)
        )

    def cdn_count(self, digest: str | None = None) -> int:
        """Count the GETs that reached the CDN, whatever it answered."""
        return self.count("GET", "cdn", digest)

    def token_count(self, identity: str | None = None) -> int:
        """Count the requests to the token server, also the refused ones."""
        return sum(1 for request in self._about("token") if identity is None or request.identity == identity)

    @property
    def blob_bytes_sent(self) -> int:
        """Bytes of blobs sent by the registry and the CDN, all resumed and wasted ones included."""
        return self.bytes_sent()

    def bytes_sent(self, digest: str | None = None) -> int:
        """Bytes of one blob (or of all) that were sent."""
        return sum(
            request.sent
            for kind in ("blob", "cdn")
            for request in self._about(kind, digest)
            if request.status in (200, 206)
        )

    def reset_counts(self) -> None:
        """Forget all requests and violations so far."""
        self.requests.clear()
        self.violations.clear()

    def _about(self, kind: str, reference: str | None = None) -> Iterator[Recorded]:
        return (
            request
            for request in self.requests
            if request.kind == kind and (reference is None or request.reference == reference)
        )
