"""What can be asked of an upstream registry (OCI distribution spec, "Pull"; PROTOCOL 10, "Upstream fetch algorithm").

`pull` speaks to it through `fallback.Registry`. Only `get_manifest` costs a counted pull; all else is free.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import Final, Literal

from yarl import URL

from proxy.clock import Clock
from proxy.config import UpstreamOptions
from proxy.lru import Lru
from proxy.metrics import Metrics
from proxy.oci.errors import BlobUnknown, Denied, ManifestUnknown, NameUnknown, QueryInvalid, Unavailable
from proxy.oci.listings import MAX_LISTING_BYTES, Listing, passable_warnings
from proxy.oci.manifests import (
    ACCEPT_ALL,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    Descriptor,
    Manifest,
)
from proxy.oci.names import DOCKER_HUB, Digest, Reference, Repository, Tag, parse_reference
from proxy.policy.quota import Gate
from proxy.policy.quota.account import Account
from proxy.policy.quota.ledger import By
from proxy.policy.quota.purpose import UNKNOWN_PURPOSE, Purpose
from proxy.upstream.answers import confirmed_digest, content_digest, listing_of, media_type, verified_manifest
from proxy.upstream.auth import Authorizer
from proxy.upstream.body import BlobBody, total_size
from proxy.upstream.credentials import Credentials
from proxy.upstream.failures import bounded
from proxy.upstream.parts import Further
from proxy.upstream.questions import Questions
from proxy.upstream.refusals import Refusals
from proxy.upstream.tokens import Tokens
from proxy.upstream.transport import Answer, Transport, content_length

_HEAD_REFUSED: Final = frozenset({401, 403, 405})
"""What stores that sign a URL for GET alone, and registries that know no HEAD of blobs, answer to it (PROTOCOL 3)."""

_PROBED: Final = Repository(DOCKER_HUB, "ratelimitpreview/test")
_MAX_WARNED: Final = 1000


class DigestMissing(Unavailable):
    """A HEAD was answered without Docker-Content-Digest: only a GET can tell."""


class Upstream:
    """A registry that we ask, with its connections, tokens, credentials and limits.

    Every verb raises, of `proxy.oci.errors` only: *Unknown (404), Denied (401 that stands, 403), TooManyRequests (429,
    after closing a gate of `limits`; while that is closed, from memory), and Unavailable for whatever else kept us from
    an answer.
    """

    def __init__(
        self, options: UpstreamOptions, metrics: Metrics, clock: Clock, account: Account | None = None
    ) -> None:
        """`account` is what is known of its quota, if anybody knew it before."""
        self.name = options.name
        self.account = account or Account(options.name, options.username)
        self.limits = self.account.limits
        self._url = URL(options.url)
        self._transfers = asyncio.Semaphore(options.transfers) if options.transfers else None
        self._warnings: Lru[tuple[Repository, Digest], tuple[str, ...]] = Lru(_MAX_WARNED)
        self._idle_timeout = options.idle_timeout
        self._metrics = metrics
        self._clock = clock
        self._credentials = Credentials(options, metrics, clock)
        self._questions = Questions(options, metrics, clock)
        self._transport = Transport(options, metrics, self._questions.answered)
        self._refusals = Refusals(self.name, self.limits, clock)
        self._tokens = Tokens(self._transport, self._credentials, self._refusals, clock)
        self._auth = Authorizer(self._url, self._transport, self._tokens, self._credentials)
        self._further = Further(
            options,
            self._transport,
            self._auth,
            self._refusals,
            self.limits,
            self._questions,
            self._transfers,
            self._pass,
            metrics,
            clock,
        )

    def __repr__(self) -> str:
        return f"<Upstream {self.name}>"

    @property
    def has_credentials(self) -> bool:
        """Whether a user name and password are configured."""
        return self._credentials.configured

    def warnings(self, repository: Repository, digest: Digest) -> tuple[str, ...]:
        """The Warning values that came with this manifest when it was last asked about."""
        return self._warnings.get((repository, digest)) or ()

    def credentials_state(self) -> Literal["none", "ok", "rejected"]:
        """`rejected` from a refusal until upstream takes them again; meanwhile we ask anonymously."""
        return self._credentials.state

    def breaker_open_for(self) -> float | None:
        """The seconds for which no question is asked, since several in a row got no answer; None while they are."""
        return self._questions.breaker_open_for()

    async def start(self) -> None:
        """Ready to ask; asks nothing yet."""
        await self._transport.start()

    async def aclose(self) -> None:
        """Ends whatever is being asked."""
        await self._tokens.aclose()
        await self._transport.aclose()

    def may_pull(self) -> bool:
        """Whether `get_manifest` would not be refused, as far as is known."""
        return not self.limits.is_exhausted(self._clock.monotonic())

    async def head_manifest(self, repository: Repository, reference: Reference, accept: str = ACCEPT_ALL) -> Descriptor:
        """What a reference points to now. Free. Raises DigestMissing where upstream does not say."""
        return await self._head_manifest(repository, reference, accept, "head")

    async def probe(self) -> None:
        """Ask for the quota, with what is there for that, or what it was told with before (PROTOCOL 1.5). Free."""
        repository: Repository = _PROBED
        reference: Reference = Tag("latest")
        if self.name != DOCKER_HUB:
            if self.account.subject is None:
                return
            name, text = self.account.subject
            repository, reference = Repository(self.name, name), parse_reference(text)
        with suppress(DigestMissing):
            await self._head_manifest(repository, reference, ACCEPT_ALL, "probe")

    async def _head_manifest(self, repository: Repository, reference: Reference, accept: str, by: By) -> Descriptor:
        await self._pass(Gate.REQUESTS)
        async with self._questions.ask():
            url = self._manifest_url(repository, reference)
            with await self._auth.request("manifest", "HEAD", url, repository, {"Accept": accept}) as answer:
                self._observe(answer, by, repository, reference)
                if answer.status != 200:
                    raise await self._refusals.of(answer, ManifestUnknown)
                digest = confirmed_digest(self.name, reference, content_digest(answer))
                if digest is None:
                    raise DigestMissing(f"{self.name} does not tell digests")
                self._note_warnings(repository, digest, answer)
                return Descriptor(digest, media_type(answer), content_length(answer.headers))

    async def get_manifest(
        self,
        repository: Repository,
        reference: Reference,
        accept: str = ACCEPT_ALL,
        purpose: Purpose = UNKNOWN_PURPOSE,
    ) -> Manifest:
        """The manifest, verified: the bytes are those of its digest. `purpose` is for the books.

        Costs a counted pull, and counts one for every answer but 401 and 429: those are known to be free, of all others
        it is assumed that they are not.
        """
        await self._pass_pulls(repository, reference, accept)
        async with self._questions.ask():
            url = self._manifest_url(repository, reference)
            with await self._auth.request("manifest", "GET", url, repository, {"Accept": accept}) as answer:
                if answer.elsewhere or answer.status != 429:
                    self._metrics.counted_pull(self.name)
                    self.account.spent(str(repository), str(reference), purpose, self._clock.monotonic())
                self._observe(answer, "get", repository, reference)
                if answer.status != 200:
                    raise await self._refusals.of(answer, ManifestUnknown, pull=True)
                body = await answer.read(MAX_MANIFEST_BYTES)
                if body is None:
                    raise Unavailable(f"{self.name}: a manifest of more than {MAX_MANIFEST_BYTES} bytes")
                self._metrics.fetched(self.name, "manifest", len(body))
                manifest = verified_manifest(self.name, reference, answer, body)
                self._note_warnings(repository, manifest.digest, answer)
                return manifest

    async def head_blob(self, repository: Repository, digest: Digest) -> int | None:
        """The size of a blob in bytes, None if upstream does not say. Where HEAD is refused a GET of one byte asks."""
        await self._pass(Gate.REQUESTS)
        async with self._questions.ask():
            url = self._blob_url(repository, digest)
            try:
                with await self._auth.request("blob", "HEAD", url, repository, {}) as answer:
                    size = content_length(answer.headers)
                    if answer.status == 200 and size is not None:
                        return size
                    if answer.status != 200 and answer.status not in _HEAD_REFUSED:
                        raise await self._refusals.of(answer, BlobUnknown)
            except Denied:
                pass  # Perhaps the HEAD alone: then the GET is not.
            with await self._auth.request("blob", "GET", url, repository, {"Range": "bytes=0-0"}) as answer:
                if answer.status in (206, 416):
                    return total_size(answer.headers)
                if answer.status == 200:
                    return content_length(answer.headers)
                raise await self._refusals.of(answer, BlobUnknown)

    async def list(self, repository: Repository, subject: Digest | None, query: str) -> Listing:
        """A page of the repository's tags or, with a subject, of what refers to that. Free."""
        self._check(Gate.REQUESTS)
        path, listed = ("tags/list", "application/json") if subject is None else (f"referrers/{subject}", OCI_INDEX)
        url = self._v2(repository, path + (f"?{query}" if query else ""))
        async with self._questions.ask():
            with await self._auth.request("listing", "GET", url, repository, {"Accept": listed}) as answer:
                if answer.status == 400 and not answer.elsewhere:
                    raise QueryInvalid(f"{self.name} refuses the query")
                if answer.status != 200:
                    raise await self._refusals.of(answer, NameUnknown if subject is None else ManifestUnknown)
                body = await answer.read(MAX_LISTING_BYTES)
                if body is None or not body.lstrip().startswith(b"{"):
                    raise Unavailable(f"{self.name}: a list that is none, or of more than {MAX_LISTING_BYTES} bytes")
                self._metrics.fetched(self.name, "listing", len(body))
                return listing_of(self.name, answer, listed, body)

    @asynccontextmanager
    async def open_blob(self, repository: Repository, digest: Digest, offset: int = 0) -> AsyncIterator[BlobBody]:
        """The bytes of a blob from `offset` on, or from 0 where upstream cannot start elsewhere: see `BlobBody.start`.

        Every opening asks the registry anew, and so gets a fresh redirect. The connection is closed at the end of the
        `with`, whatever is left of the body. Bytes are not verified here. Waits for its turn where the configuration
        limits how many `transfers` there are at a time.
        """
        async with self._transfers or nullcontext():
            await self._pass(Gate.REQUESTS)
            async with bounded(self.name, at_least=self._idle_timeout):
                body = await self._open(repository, digest, offset)
            self._questions.answered()
            try:
                yield body
            finally:
                body.close()

    async def is_public(self, repository: Repository, reference: Reference | None) -> bool:
        """Whether someone without an account may pull this repository. Free.

        A 404 means that the repository may be read and lacks the reference; but registries other than Docker Hub hide
        private repositories behind a 404 too, so there its list of tags must be readable. A 200 must look like a
        registry's, since the page of a login looks like a success too.
        """
        await self._pass(Gate.REQUESTS)
        async with self._questions.ask():
            try:
                if await self._has_publicly(repository, reference or Tag("latest")):
                    return True
                return self.name == DOCKER_HUB or await self._lists_publicly(repository)
            except Denied:
                return False

    def _check(self, gate: Gate) -> None:
        self.limits.check(gate, self.name, self._clock.monotonic())

    async def _pass(self, gate: Gate) -> None:
        """Returns when this kind of request may be sent. Raises TooManyRequests."""
        self._check(gate)
        seconds = self.limits.slot(self.name, self._clock.monotonic())
        if seconds:
            await asyncio.sleep(seconds)
            self._check(gate)

    async def _pass_pulls(self, repository: Repository, reference: Reference, accept: str) -> None:
        """Raises TooManyRequests while the pull limit is known to be reached; when that is unsure, a HEAD tells."""
        await self._pass(Gate.PULLS)
        if self.limits.probe_due(self._clock.monotonic()):
            await self.head_manifest(repository, reference, accept)
            self._check(Gate.PULLS)
            self.limits.open(Gate.PULLS)  # The HEAD may have said nothing of the quota: then the GET will tell.

    async def _has_publicly(self, repository: Repository, reference: Reference) -> bool:
        url, headers = self._manifest_url(repository, reference), {"Accept": ACCEPT_ALL}
        with await self._auth.request("manifest", "HEAD", url, repository, headers, anonymous=True) as answer:
            if not self.has_credentials:
                self._observe(
                    answer, "head", repository, reference
                )  # The quota of those without an account is not ours otherwise.
            is_manifest = content_digest(answer) is not None or media_type(answer).startswith("application/vnd.")
            return await self._yes_or_no(answer, is_manifest)

    async def _lists_publicly(self, repository: Repository) -> bool:
        url = self._v2(repository, "tags/list?n=1")
        with await self._auth.request("other", "GET", url, repository, {}, anonymous=True) as answer:
            return await self._yes_or_no(answer, media_type(answer) == "application/json")

    async def _yes_or_no(self, answer: Answer, is_registrys: bool) -> bool:
        if answer.status == 200:
            if not is_registrys:
                raise Unavailable(f"{self.name}: an answer that is not a registry's")
            return True
        if answer.status == 404 and not answer.elsewhere:
            return False
        raise await self._refusals.of(answer, ManifestUnknown)

    async def _open(self, repository: Repository, digest: Digest, offset: int) -> BlobBody:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        url = self._blob_url(repository, digest)
        answer = await self._auth.request("blob", "GET", url, repository, headers)
        try:
            if answer.status == 416 and offset:
                answer.close()  # There is nothing from there on: whatever was got before, it is not of this blob.
                return await self._open(repository, digest, 0)
            if answer.status not in (200, 206):
                raise await self._refusals.of(answer, BlobUnknown)
            find_parts = partial(self._further.of, repository, url, answer)
            return BlobBody(self.name, answer, offset, self._idle_timeout, self._metrics, find_parts=find_parts)
        except BaseException:
            answer.close()
            raise

    def _observe(self, answer: Answer, by: By, repository: Repository, reference: Reference) -> None:
        if not answer.elsewhere and answer.status != 429:
            subject = (repository.name, str(reference))
            self.account.heard(answer.headers, by, self._clock.monotonic(), subject)

    def _note_warnings(self, repository: Repository, digest: Digest, answer: Answer) -> None:
        warnings = passable_warnings(answer.headers.getall("Warning", ()))
        if warnings:
            self._warnings.put((repository, digest), warnings)
        else:
            self._warnings.drop((repository, digest))

    def _manifest_url(self, repository: Repository, reference: Reference) -> URL:
        return self._v2(repository, f"manifests/{reference}")

    def _blob_url(self, repository: Repository, digest: Digest) -> URL:
        return self._v2(repository, f"blobs/{digest}")

    def _v2(self, repository: Repository, path: str) -> URL:
        """Made of values that were parsed, which need no quoting."""
        return URL(f"{self._url.origin()}/v2/{repository.name}/{path}", encoded=True)
