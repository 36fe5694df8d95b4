"""An upstream registry and its fallbacks: other registries that are asked when it is down or limited.

`pull` speaks to upstreams through `Registry` alone. Whatever the upstream itself answers stands, a 404 and a 403 too;
only when it could not be asked does the next one get the question, under the same repository name and with no
credentials but its own. What a fallback does not have says nothing: if none has it, the upstream's own error is raised.

What has a digest is the same wherever it comes from. What has none - where a tag points, whether a repository is public
- is given with the name of the fallback that said it. Lists are the upstream's own word only: nobody could tell that
a fallback's leaves something out, such as a signature.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Generic, NamedTuple, TypeVar

from proxy.clock import Clock
from proxy.lru import Lru
from proxy.metrics import Metrics
from proxy.oci.errors import Denied, RegistryError, TooManyRequests, Unavailable
from proxy.oci.listings import Listing
from proxy.oci.manifests import ACCEPT_ALL, Descriptor, Manifest
from proxy.oci.names import Digest, Reference, Repository, Tag
from proxy.policy.quota.account import Account
from proxy.policy.quota.purpose import UNKNOWN_PURPOSE, Purpose
from proxy.upstream.body import BlobBody
from proxy.upstream.client import DigestMissing, Upstream

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 5.0
"""How long an upstream that has fallbacks may take for its first word; clients give up at 30 s (PROTOCOL 8.10)."""
REST_SECONDS: Final = 30.0
"""For how long one that took longer is asked last instead of first, so that not every request waits for it."""

_MAX_BROKE_OFF: Final = 1000

T = TypeVar("T")


class Said(NamedTuple, Generic[T]):
    """An answer that nothing verifies, and the fallback that gave it: None for the upstream itself."""

    what: T
    source: str | None


class Registry:
    """What a client's registry is for us. Its verbs are those of `Upstream`, and raise what those raise."""

    def __init__(
        self, upstream: Upstream, fallbacks: Sequence[Upstream], window: float, metrics: Metrics, clock: Clock
    ) -> None:
        self.name = upstream.name
        self.window = window
        """For how many seconds its tags and lists are answered without asking."""
        self._upstream = upstream
        self._fallbacks = fallbacks
        self._metrics = metrics
        self._clock = clock
        self._rests_until = 0.0
        self._broke_off: Lru[Digest, bool] = Lru(_MAX_BROKE_OFF)

    def __repr__(self) -> str:
        return f"<Registry {self.name}, fallbacks {', '.join(each.name for each in self._fallbacks) or 'none'}>"

    @property
    def has_credentials(self) -> bool:
        """Whether a user name and password are configured for the upstream itself."""
        return self._upstream.has_credentials

    def warnings(self, repository: Repository, digest: Digest) -> tuple[str, ...]:
        """The Warning values that came with this manifest when the upstream itself was last asked about it."""
        return self._upstream.warnings(repository, digest)

    def may_pull(self) -> bool:
        """Whether the upstream itself would not refuse a GET of a manifest, as far as is known."""
        return self._upstream.may_pull()

    def may_pull_elsewhere(self) -> bool:
        """Whether some fallback would not refuse it."""
        return any(each.may_pull() for each in self._fallbacks)

    async def resolve_tag(self, repository: Repository, tag: Tag, accept: str) -> Said[Descriptor]:
        """What a tag points to now, and who says so. Free. Raises DigestMissing where the upstream does not tell."""
        return await self._ask("manifest", lambda each: each.head_manifest(repository, tag, accept))

    async def head_manifest(self, repository: Repository, digest: Digest) -> Descriptor:
        """Whether the repository has this manifest, and its type and size. Free."""
        return (await self._ask("manifest", lambda each: each.head_manifest(repository, digest))).what

    @property
    def account(self) -> Account:
        """What is known of the quota of the upstream itself."""
        return self._upstream.account

    async def refresh_quota(self, repository: Repository, reference: Reference) -> None:
        """Ask the upstream itself about this manifest, for what its headers tell. Free."""
        await self._upstream.head_manifest(repository, reference)

    async def get_manifest(
        self,
        repository: Repository,
        reference: Reference,
        accept: str = ACCEPT_ALL,
        purpose: Purpose = UNKNOWN_PURPOSE,
        *,
        kept: TooManyRequests | None = None,
    ) -> Manifest:
        """The manifest, verified. A counted pull. By tag from the upstream itself only: a fallback's has no digest.

        With `kept`, the upstream's own quota is kept for others: only fallbacks are asked, and that is raised if none
        has it.
        """

        async def ask(each: Upstream) -> Manifest:
            return await each.get_manifest(repository, reference, accept, purpose)

        if isinstance(reference, Tag):
            if kept is not None:
                raise kept
            return await ask(self._upstream)
        return (await self._ask("manifest", ask, kept)).what

    async def head_blob(self, repository: Repository, digest: Digest) -> int | None:
        """The size of a blob in bytes, None if nobody says."""
        return (await self._ask("blob", lambda each: each.head_blob(repository, digest))).what

    @asynccontextmanager
    async def open_blob(self, repository: Repository, digest: Digest, offset: int = 0) -> AsyncIterator[BlobBody]:
        """The bytes of a blob from `offset` on: what one registry began, another may end.

        After a transfer from the upstream itself broke off, or did not come forward, the fallbacks are asked first.
        """
        async with AsyncExitStack() as opened:
            said = await self._ask(
                "blob",
                lambda each: opened.enter_async_context(each.open_blob(repository, digest, offset)),
                last=bool(self._broke_off.get(digest)),
            )
            self._broke_off.drop(digest)
            try:
                yield said.what
            except Unavailable:
                if said.source is None:
                    self._broke_off.put(digest, True)
                raise

    async def list(self, repository: Repository, subject: Digest | None, query: str) -> Listing:
        """A page of a list, from the upstream itself."""
        return await self._upstream.list(repository, subject, query)

    async def is_public(self, repository: Repository, reference: Reference | None) -> Said[bool]:
        """Whether someone without an account may pull this repository; a fallback can only say yes. Free."""

        async def ask(each: Upstream) -> bool:
            public = await each.is_public(repository, reference)
            if not public and each is not self._upstream:
                raise Denied(f"{each.name} does not give this repository to everybody")
            return public

        return await self._ask("other", ask)

    async def _ask(
        self,
        kind: str,
        ask: Callable[[Upstream], Awaitable[T]],
        refusal: RegistryError | None = None,
        *,
        last: bool = False,
    ) -> Said[T]:
        """The first answer; `kind` is for the metrics. Fallbacks are asked only if the upstream could not be, or should
        be asked `last`: as it is while it rests, and while its breaker is open, which openings of blobs pass. With a
        `refusal` it is not asked at all, and that is its answer."""
        last = (
            last
            or refusal is not None
            or self._clock.monotonic() < self._rests_until
            or bool(self._upstream.breaker_open_for())
        )
        if self._fallbacks and not last:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    return Said(await ask(self._upstream), None)
            except DigestMissing:
                raise  # It was asked, and answered.
            except (Unavailable, TooManyRequests) as error:
                refusal = error
            except TimeoutError:
                log.warning("%s is slow to answer: its fallbacks are asked first for %g s", self.name, REST_SECONDS)
                self._rests_until = self._clock.monotonic() + REST_SECONDS
        for each in self._fallbacks:
            try:
                answer = await ask(each)
            except RegistryError as error:
                log.info("%s, a fallback of %s, cannot help: %s", each.name, self.name, error.message)
            else:
                self._metrics.fallback_answer(self.name, each.name, kind)
                return Said(answer, each.name)
        if refusal is not None:
            raise refusal
        return Said(await ask(self._upstream), None)
