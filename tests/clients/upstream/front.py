"""What the cache is pointed at: docker-registry, answering as Docker Hub's registry-1 does.

It forwards to the real registry, which checks the tokens. It adds the quota (headers, counting, 429) to manifests and
sends GETs of blobs to the CDN. The referrers API, which docker-registry lacks, it answers itself where a test wants it.
"""

from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import jwt
from aiohttp import web
from yarl import URL

from .cdn import blob_path
from .keys import SigningKey
from .ledger import Ledger
from .quota import ANONYMOUS, Quota
from .referrers import Referrers
from .settings import Settings
from .signing import Signer

_REQUEST_HEADERS: Final = ("Authorization", "If-None-Match", "User-Agent")
_RESPONSE_HEADERS: Final = (
    "Content-Length",
    "Content-Type",
    "Docker-Content-Digest",
    "Docker-Distribution-Api-Version",
    "Etag",
    "Link",
    "Www-Authenticate",
)
# Docker Hub's words of today, PROTOCOL 1.4. Nothing in them or beside them says when to come back.
_TOO_MANY: Final = (
    '{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your unauthenticated pull rate limit. '
    'https://www.docker.com/increase-rate-limit"}]}'
)


class Front:
    """One registry's door: routes by kind of resource, forwards, counts."""

    def __init__(
        self,
        settings: Settings,
        key: SigningKey,
        ledger: Ledger,
        quota: Quota,
        signer: Signer,
        referrers: Referrers,
    ) -> None:
        self._settings = settings
        self._key = key
        self._ledger = ledger
        self._quota = quota
        self._signer = signer
        self._referrers = referrers
        self._session: aiohttp.ClientSession

    def app(self) -> web.Application:
        app = web.Application()
        app.cleanup_ctx.append(self._connect)
        app.router.add_route("*", "/v2/{repository:.+}/manifests/{reference}", self._manifest)
        app.router.add_route("*", "/v2/{repository:.+}/blobs/{digest:sha256:[0-9a-f]{64}}", self._blob)
        app.router.add_route("*", "/v2/{repository:.+}/tags/list", self._listing)
        app.router.add_route("*", "/v2/{repository:.+}/referrers/{digest}", self._listing)
        app.router.add_route("*", "/v2/{rest:.*}", self._forward)
        return app

    async def _connect(self, app: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as self._session:
            yield

    async def _manifest(self, request: web.Request) -> web.StreamResponse:
        response = await self._forward(request)
        if response.status in (401, 403):
            return response
        identity = _identity(request)
        if request.method == "HEAD":
            self._ledger.manifest_heads += 1
        elif self._quota.remaining(identity) == 0:
            self._ledger.refused_pulls += 1
            headers = self._quota.headers(identity)
            return web.Response(status=429, text=_TOO_MANY, content_type="application/json", headers=headers)
        elif response.status in (200, 304):
            self._quota.spent[identity] += 1
            self._ledger.counted_pulls[response.headers["Docker-Content-Digest"]] += 1
        response.headers.update(self._quota.headers(identity))
        return response

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        if request.method != "GET":
            return await self._forward(request)
        # The registry says whether this token may have this blob of this repository; the CDN only knows signatures.
        permission = await self._forward(request, method="HEAD")
        if permission.status != 200:
            return await self._forward(request)
        path = blob_path(request.match_info["digest"])
        location = f"{self._settings.cdn_url}{path}?{self._signer.query(path)}"
        headers = {"Docker-Distribution-Api-Version": "registry/2.0", "Content-Type": "application/octet-stream"}
        return web.Response(status=307, headers={**headers, "Location": location})

    async def _listing(self, request: web.Request) -> web.StreamResponse:
        subject = request.match_info.get("digest")
        if subject is None or not self._referrers.are_known:
            response = await self._forward(request)
        else:
            repository = request.match_info["repository"]
            # Who may list the tags of a repository may list the referrers too; the registry knows only of the first.
            response = await self._forward(request, path=f"/v2/{repository}/tags/list")
            if response.status == 200:
                response = self._referrers.answer(repository, subject, request.query.get("artifactType"))
        if response.status != 401:
            self._ledger.listings[request.path_qs] += 1
        return response

    async def _forward(self, request: web.Request, method: str | None = None, path: str | None = None) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme not in ("", "Bearer"):
            self._ledger.violations.append("a password was sent to the registry")
        elif token and not self._key.has_signed(token):
            self._ledger.violations.append("a token of another registry was sent to this one")
        target = URL(self._settings.origin + (path or request.raw_path), encoded=True)
        sent = {name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers}
        # Accept may come on several lines (dockerd), and the registry must see them all.
        sent["Accept"] = ", ".join(request.headers.getall("Accept", ["*/*"]))
        sent["Accept-Encoding"] = "identity"
        async with self._session.request(
            method or request.method, target, headers=sent, allow_redirects=False
        ) as answer:
            kept = {name: answer.headers[name] for name in _RESPONSE_HEADERS if name in answer.headers}
            return web.Response(status=answer.status, headers=kept, body=await answer.read() or None)


def _identity(request: web.Request) -> str:
    """Return whose token this is; the registry has verified it."""
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not token:
        return ANONYMOUS
    subject: str = jwt.decode(token, options={"verify_signature": False})["sub"]
    return subject
