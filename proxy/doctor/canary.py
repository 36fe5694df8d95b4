"""A pull through the running cache, as a client would make it.

HEAD of the tag, GET of the manifest it names, GET of that image's configuration. The GET of a manifest that the cache
does not hold costs a counted pull, and a run spends one at most: an index and its image are two manifests, so of an
index that is new to the cache the image is left to the next run. HEADs tell what the cache holds, and are free.
"""

from __future__ import annotations

import json
from typing import Any, Final

from proxy.doctor.cache import Reply, RunningCache, Unanswered
from proxy.doctor.case import Case
from proxy.doctor.findings import Finding, failed, ok, skipped
from proxy.doctor.image import Image
from proxy.oci.errors import DigestInvalid
from proxy.oci.names import Digest

_SECONDS: Final = 25.0
_BUDGET: Final = 1
_DENIED: Final = 'Private repositories are refused: [access] private = "serve" changes that, --canary tries another.'
_CURES: Final = {
    403: _DENIED,
    404: "Is there such an image? --canary tries another.",
    429: "The pull limit is reached: see the quota above. What is cached is served meanwhile.",
    503: "The cache could not ask upstream: the steps above and its log say why.",
}


class _Wrong(Exception):
    """The pull failed."""

    def __init__(self, text: str, cure: str) -> None:
        super().__init__(text)
        self.finding = failed(text, cure)


async def check_canary(case: Case) -> Finding:
    """Whether an image comes through, whole."""
    if case.canary is None:
        return skipped("left out, as was asked")
    if case.canary.repository.registry not in {options.name for options in case.config.upstreams}:
        return skipped(f"{case.canary.repository.registry} is no upstream here: --canary names another image")
    if not await case.cache.is_ours():
        return skipped("pullthrough is not running, or not reached")
    try:
        return ok(await _Pull(case.cache, case.canary).make())
    except _Wrong as wrong:
        return wrong.finding


class _Pull:
    """One canary pull."""

    def __init__(self, cache: RunningCache, image: Image) -> None:
        self._cache = cache
        self._image = image
        self._spent = 0

    async def make(self) -> str:
        """What came through. Raises _Wrong."""
        head = await self._ask(f"manifests/{self._image.reference}", "HEAD of the manifest", head=True)
        digest = _digest(head.headers.get("Docker-Content-Digest"), "HEAD of the manifest")
        manifest = await self._manifest(digest)
        if manifest is not None and "manifests" in manifest:
            child = _first_image(manifest)
            manifest = await self._manifest(child) if child is not None else None
        if manifest is None:
            return f"{self._image} came through; blobs would cost a second pull, run this again to try them{self._cost}"
        named = _config(manifest)
        if named is None:
            return f"{self._image} came through; it is no image with a configuration, so no blob was tried{self._cost}"
        config = _digest(named, "the manifest")
        body = (await self._ask(f"blobs/{config}", "GET of the configuration blob")).body
        _verify(config, body, "configuration blob")
        return f"{self._image} came through, manifest and blob{self._cost}"

    async def _manifest(self, digest: Digest) -> dict[str, Any] | None:
        """A manifest, verified; None if the run has no pull left for it."""
        path = f"manifests/{digest}"
        head = await self._ask(path, "HEAD of the manifest by digest", head=True)
        held = "hit" in _cache_status(head)
        if not held and self._spent >= _BUDGET:
            return None
        reply = await self._ask(path, "GET of the manifest")
        # Another client may have fetched it in between, but never we ourselves for nothing.
        self._spent += 0 if "hit" in _cache_status(reply) else 1
        _verify(digest, reply.body, "manifest")
        return _document(reply.body)

    async def _ask(self, path: str, what: str, *, head: bool = False) -> Reply:
        repository = self._image.repository
        target = f"/v2/{repository.name}/{path}?ns={repository.registry}"
        try:
            reply = await self._cache.get(target, head=head, seconds=_SECONDS)
        except Unanswered as error:
            raise _Wrong(f"{what} failed: {error}", "The log of the cache says why.") from None
        if reply.status != 200:
            cure = _CURES.get(reply.status, "The log of the cache says why.")
            raise _Wrong(f"{what} of {self._image} was answered {reply.status}", cure)
        return reply

    @property
    def _cost(self) -> str:
        return "; cost 1 counted pull" if self._spent else "; cost no pull, the cache held it"


def _cache_status(reply: Reply) -> set[str]:
    return {part.strip() for part in reply.headers.get("Cache-Status", "").split(";")}


def _digest(text: str | None, where: str) -> Digest:
    try:
        return Digest.parse(text or "")
    except DigestInvalid:
        raise _Wrong(
            f"{where} names no digest", "Something between here and the cache changes answers: go around it."
        ) from None


def _verify(digest: Digest, body: bytes, what: str) -> None:
    if not digest.matches(body):
        raise _Wrong(
            f"the {what} has other bytes than its digest {digest}",
            "Something between here and the cache changes answers: go around it.",
        )


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    return document if isinstance(document, dict) else {}


def _first_image(index: dict[str, Any]) -> Digest | None:
    """The first manifest that an index lists."""
    listed = index.get("manifests")
    first = listed[0] if isinstance(listed, list) and listed else None
    return _digest(first.get("digest"), "the index") if isinstance(first, dict) else None


def _config(manifest: dict[str, Any]) -> str | None:
    config = manifest.get("config")
    return config.get("digest") if isinstance(config, dict) else None
