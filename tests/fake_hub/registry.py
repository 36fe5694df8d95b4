"""The registry: challenges, manifests that cost a pull, and blobs that are somewhere else."""

import json
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, urlencode

from multidict import CIMultiDict

from .answers import Answer, json_answer, ranged, redirect, registry_error
from .content import Bytes
from .ledger import Ledger, Recorded
from .library import OCI_INDEX, OCI_MANIFEST, Library, Manifest, Repository
from .quota import Quota, source_of
from .settings import ANONYMOUS, Settings
from .tokens import Grant, Tokens

_OCI_NAMES = {OCI_MANIFEST: "OCI manifest", OCI_INDEX: "OCI index"}


class Registry:
    """Answers as registry-1.docker.io does."""

    def __init__(
        self,
        settings: Settings,
        library: Library,
        ledger: Ledger,
        tokens: Tokens,
        quota: Quota,
        sign: Callable[[str, str], str],
    ) -> None:
        self._settings = settings
        self._library = library
        self._ledger = ledger
        self._tokens = tokens
        self._quota = quota
        self._sign = sign

    def answer(self, request: Recorded) -> Answer:
        """Answer any request; what a client did wrong is noted."""
        self._note_violations(request)
        answer = self._answer(request)
        answer.headers["docker-distribution-api-version"] = "registry/2.0"
        answer.headers["strict-transport-security"] = "max-age=31536000"
        return answer

    def _answer(self, request: Recorded) -> Answer:
        if request.kind == "other":
            return registry_error(404, "UNKNOWN", "page not found")
        grant = self._tokens.grant(request.headers.get("Authorization"))
        if grant is not None:
            request.identity = grant.identity
        refusal = self._refusal(request, grant)
        if refusal is not None:
            return refusal
        if request.method not in ("GET", "HEAD"):
            return registry_error(405, "UNSUPPORTED", "The operation is unsupported.")
        if request.kind == "ping":
            return json_answer(200, {})
        repository = self._library.repositories.get(request.repository or "")
        if repository is None:
            return registry_error(404, "NAME_UNKNOWN", "repository name not known to registry")
        return {
            "manifest": self._manifest,
            "blob": self._blob,
            "tags": self._tags,
            "referrers": self._referrers,
        }[request.kind](request, repository)

    # Who may ask

    def _refusal(self, request: Recorded, grant: Grant | None) -> Answer | None:
        if grant is None:
            sent = "Authorization" in request.headers
            return self._challenge(request, "invalid_token" if sent else None)
        if request.kind == "catalog" or (request.kind != "ping" and request.repository not in grant.repositories):
            return self._challenge(request, "insufficient_scope")
        return None

    def _challenge(self, request: Recorded, error: str | None) -> Answer:
        detail: object = None
        challenge = f'Bearer realm="{self._settings.realm}",service="{self._settings.service}"'
        if request.repository is not None:
            challenge += f',scope="repository:{request.repository}:pull"'
            detail = [{"Type": "repository", "Class": "", "Name": request.repository, "Action": "pull"}]
        elif request.kind == "catalog":
            challenge += ',scope="registry:catalog:*"'
        if error is not None:
            challenge += f',error="{error}"'
        answer = registry_error(401, "UNAUTHORIZED", "authentication required", detail)
        answer.headers["www-authenticate"] = challenge
        if request.kind == "manifest":
            answer.headers["docker-ratelimit-source"] = source_of(ANONYMOUS)
        return answer

    def _note_violations(self, request: Recorded) -> None:
        if request.headers.get("Authorization", "").lower().startswith("basic"):
            self._ledger.violations.append("a password was sent to the registry")
        encoding = request.headers.get("Accept-Encoding", "identity")
        if request.kind in ("manifest", "blob") and encoding != "identity":
            self._ledger.violations.append(f"Accept-Encoding at the registry was {encoding!r}")

    # What is asked for

    def _manifest(self, request: Recorded, repository: Repository) -> Answer:
        """Serve a manifest. A GET that is answered 200 or 304 is a counted pull, and a HEAD never is."""
        identity, counts = request.identity, request.method == "GET" and not repository.sponsored
        if counts and self._quota.remaining(identity) == 0:
            answer = self._limited(identity)
        else:
            answer = self._find_manifest(request, repository)
            if counts and answer.status in (200, 304):
                self._quota.spend(identity)
        if not repository.sponsored:
            answer.headers.update(self._quota.headers(identity))
        return answer

    def _limited(self, identity: str) -> Answer:
        advice = "You may increase the limit by authenticating and upgrading: "
        kind, advice = ("unauthenticated pull", "") if identity == ANONYMOUS else ("pull", advice)
        message = f"You have reached your {kind} rate limit. {advice}https://www.docker.com/increase-rate-limit"
        answer = registry_error(429, "TOOMANYREQUESTS", message)
        if self._settings.retry_after is not None:
            answer.headers["retry-after"] = str(self._settings.retry_after)
        return answer

    def _find_manifest(self, request: Recorded, repository: Repository) -> Answer:
        reference = request.reference or ""
        manifest = repository.manifests.get(repository.tags.get(reference, reference))
        if manifest is None:
            detail = {"Tag": reference} if ":" not in reference else {"Name": request.repository}
            return registry_error(404, "MANIFEST_UNKNOWN", "manifest unknown", detail)
        if manifest.media_type in _OCI_NAMES and not _accepts(request, manifest.media_type):
            name = _OCI_NAMES[manifest.media_type]
            message = f"{name} found, but accept header does not support {name.replace('index', 'indexe')}s"
            return registry_error(404, "MANIFEST_UNKNOWN", message)
        etag = f'"{manifest.digest}"'
        headers = {"content-type": manifest.media_type, "docker-content-digest": manifest.digest, "etag": etag}
        if request.method == "GET" and request.headers.get("If-None-Match") == etag:
            return Answer(304, CIMultiDict(headers))
        return Answer(200, CIMultiDict(headers), Bytes(manifest.body))

    def _blob(self, request: Recorded, repository: Repository) -> Answer:
        digest = request.reference or ""
        if digest not in repository.blobs:
            return registry_error(404, "BLOB_UNKNOWN", "blob unknown to registry", {"Digest": digest})
        direct = self._settings.direct_blobs or (request.method == "HEAD" and not self._settings.redirect_heads)
        if not direct:
            return redirect(self._sign(request.method, digest))
        headers = {"content-type": "application/octet-stream", "docker-content-digest": digest, "etag": f'"{digest}"'}
        return ranged(self._library.content_of(digest), headers, request.range)

    def _tags(self, request: Recorded, repository: Repository) -> Answer:
        query = parse_qs(request.query)
        if not query.get("n", ["0"])[0].isdecimal():
            return registry_error(400, "PAGINATION_NUMBER_INVALID", "invalid number of results requested")
        last = query.get("last", [""])[0]
        tags = sorted(tag for tag in repository.tags if tag > last)
        page = tags[: self._page_size(query, len(tags))]
        answer = json_answer(200, {"name": request.repository, "tags": page})
        if page and len(page) < len(tags):
            self._link(answer, request, {"n": len(page), "last": page[-1]})
        return answer

    def _referrers(self, request: Recorded, repository: Repository) -> Answer:
        query = parse_qs(request.query)
        wanted, start = query.get("artifactType", [None])[0], int(query.get("after", ["0"])[0])
        found = [
            descriptor
            for manifest in repository.manifests.values()
            if (descriptor := _referrer(manifest, request.reference)) is not None
            and wanted in (None, descriptor.get("artifactType"))
        ]
        stop = start + self._page_size(query, len(found))
        body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found[start:stop]}).encode()
        headers = {"content-type": OCI_INDEX} | ({"oci-filters-applied": "artifactType"} if wanted else {})
        answer = Answer(200, CIMultiDict(headers), Bytes(body))
        if stop < len(found):
            self._link(answer, request, ({"artifactType": wanted} if wanted else {}) | {"after": stop})
        return answer

    def _page_size(self, query: dict[str, list[str]], available: int) -> int:
        asked = int(query["n"][0]) if "n" in query else available
        return asked if self._settings.page_limit is None else min(asked, self._settings.page_limit)

    def _link(self, answer: Answer, request: Recorded, following: Mapping[str, object]) -> None:
        origin = request.url.partition(request.path)[0] if self._settings.absolute_links else ""
        answer.headers["link"] = f'<{origin}{request.path}?{urlencode(following)}>; rel="next"'


def _accepts(request: Recorded, media_type: str) -> bool:
    """As distribution has it: an OCI type must be named, and `*/*` does not name it."""
    lines = ",".join(request.headers.getall("Accept", []))
    return media_type in {part.split(";")[0].strip() for part in lines.split(",")}


def _referrer(manifest: Manifest, subject: str | None) -> dict[str, object] | None:
    document = manifest.document()
    if document.get("subject", {}).get("digest") != subject:
        return None
    artifact_type = document.get("artifactType") or document.get("config", {}).get("mediaType")
    annotations = document.get("annotations")
    return (
        {"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.body)}
        | ({"artifactType": artifact_type} if artifact_type else {})
        | ({"annotations": annotations} if annotations else {})
    )
