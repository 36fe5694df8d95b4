"""Blobs: from the store, from the fill that runs, by starting one, or past the disk if there is no room for one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from proxy.clock import Clock
from proxy.collapse import Collapser
from proxy.oci.errors import RegistryError, Unavailable
from proxy.oci.manifests import Descriptor
from proxy.oci.names import Digest, Repository
from proxy.policy.negatives import Negatives
from proxy.pull.outcome import Outcome
from proxy.store.blobs import SMALL_BYTES, Blobs, StoredBlob
from proxy.store.fills import Fills
from proxy.store.fills.fill import Fill
from proxy.store.fills.passthrough import PassThrough
from proxy.store.fills.progress import HELD_BACK_BYTES
from proxy.store.index import Index
from proxy.store.room import NotStored, Reason
from proxy.store.room.leases import Leases
from proxy.upstream.fallback import Registry

log = logging.getLogger(__name__)

HEADERS_PATIENCE_SECONDS: Final = 20.0
"""How long a client waits for upstream's first word; clients give up at 30 s (PROTOCOL 4.3). The fill goes on."""

_OCTETS: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class BlobAnswer:
    """A blob that can be sent: whole in memory, in its file, in the growing file of a fill, or as it comes in.

    `size` in bytes.
    """

    content: bytes | StoredBlob | Fill | PassThrough
    size: int
    outcome: Outcome


class BlobPulls:
    """Blobs of any repository."""

    def __init__(
        self, blobs: Blobs, fills: Fills, leases: Leases, index: Index, negatives: Negatives, clock: Clock
    ) -> None:
        self._blobs = blobs
        self._fills = fills
        self._leases = leases
        self._index = index
        self._negatives = negatives
        self._clock = clock
        self._proving: Collapser[tuple[Repository, Digest], int] = Collapser()

    async def settled(self) -> None:
        """Wait for what is being asked now; fills are not ours."""
        await self._proving.settled()

    async def aclose(self) -> None:
        """Stop what is being asked upstream; fills are not ours."""
        await self._proving.aclose()

    async def describe(self, upstream: Registry, repository: Repository, digest: Digest) -> tuple[int, Outcome]:
        """The size, for HEAD: never starts a fill. Raises RegistryError."""
        if self._proven(repository, digest):
            fill = self._fills.running(digest)
            if fill is not None and fill.progress.size is not None:
                return fill.progress.size, Outcome("hit")
            size = await self._stored_size(digest)
            if size is not None:
                return size, Outcome("hit")
        return await self._prove(upstream, repository, digest), Outcome("miss")

    @asynccontextmanager
    async def open(self, upstream: Registry, repository: Repository, digest: Digest) -> AsyncIterator[BlobAnswer]:
        """The blob, open while the context lasts. Raises RegistryError."""
        content = await self._stored(digest)
        if isinstance(content, bytes):
            await self._make_sure(upstream, repository, digest)
            yield BlobAnswer(content, len(content), Outcome("hit"))
            return
        if content is not None:
            with content, self._leases.of(digest):
                if await self._is_as_told(upstream, repository, content):
                    yield BlobAnswer(content, content.size, Outcome("hit"))
                    return
        async with AsyncExitStack() as places:
            yield await self._follow(places, upstream, repository, digest)

    async def _follow(
        self, places: AsyncExitStack, upstream: Registry, repository: Repository, digest: Digest
    ) -> BlobAnswer:
        """A place among the readers of this digest's fill, once the size is known and the repository proven."""
        try:
            async with asyncio.timeout(HEADERS_PATIENCE_SECONDS):
                return await self._join(places, upstream, repository, digest)
        except TimeoutError:
            raise Unavailable(f"{upstream.name} is slow to answer; the blob is being fetched", retry_after=5) from None

    async def _join(
        self, places: AsyncExitStack, upstream: Registry, repository: Repository, digest: Digest
    ) -> BlobAnswer:
        while True:
            if not self._may_be_stored(repository, digest):
                return await self._pass(places, upstream, repository, digest, "too-large")
            fill, joined = self._join_or_start(upstream, repository, digest)
            places.enter_context(fill.reader())
            places.enter_context(self._leases.of(digest))
            if fill.repository != repository:
                await self._make_sure(upstream, repository, digest)
            try:
                size = await fill.size()
                if size <= HELD_BACK_BYTES:  # Nothing could be sent yet: so what goes wrong is an error, not a break.
                    await fill.verified()
            except NotStored as error:
                await places.aclose()
                return await self._pass(places, upstream, repository, digest, error.reason)
            except RegistryError as error:
                self._negatives.remember((fill.repository, digest), error, self._clock.monotonic())
                if fill.repository == repository:
                    raise
                await places.aclose()  # What went wrong for another repository is no answer for this one.
                continue
            if fill.answered:  # Upstream has answered the fill: proof that the fill's repository holds the blob.
                self._put_proof(fill.repository, digest, size)
            else:  # The bytes were here already.
                await self._make_sure(upstream, repository, digest)
            if fill.progress.verified and joined:  # All here; only its name is still missing.
                return BlobAnswer(fill, size, Outcome("hit"))
            return BlobAnswer(fill, size, Outcome("miss", collapsed=joined, stored=not joined))

    async def _pass(
        self, places: AsyncExitStack, upstream: Registry, repository: Repository, digest: Digest, reason: Reason
    ) -> BlobAnswer:
        """The blob from upstream, past the disk, once upstream has answered. Raises RegistryError."""
        expected = self._expected_size(repository, digest)
        passing = self._fills.pass_through(digest, partial(upstream.open_blob, repository, digest), reason, expected)
        places.push_async_callback(passing.aclose)
        try:
            await passing.open()
        except RegistryError as error:
            self._negatives.remember((repository, digest), error, self._clock.monotonic())
            raise
        if passing.size is None:
            passing.size = await self._prove(upstream, repository, digest)
        self._put_proof(repository, digest, passing.size)
        outcome = Outcome("miss", unstored=reason)
        if passing.size <= HELD_BACK_BYTES:
            return BlobAnswer(await passing.whole(), passing.size, outcome)
        return BlobAnswer(passing, passing.size, outcome)

    def _may_be_stored(self, repository: Repository, digest: Digest) -> bool:
        """Whether it is being stored, or might be, as far as its size is known."""
        if self._fills.running(digest) is not None:
            return True
        self._negatives.check((repository, digest), self._clock.monotonic())
        size = self._expected_size(repository, digest)
        return size is None or self._fills.may_store(size)

    def _expected_size(self, repository: Repository, digest: Digest) -> int | None:
        """The size that a manifest of this repository has told or, where none did, upstream."""
        link = self._index.link(repository, digest)
        return link.descriptor.size if link else None

    def _join_or_start(self, upstream: Registry, repository: Repository, digest: Digest) -> tuple[Fill, bool]:
        """The running fill, or a new one: no `await` in here, so that there is never a second one."""
        fill = self._fills.running(digest)
        if fill is not None:
            return fill, True
        expected = self._expected_size(repository, digest)
        return self._fills.start(digest, repository, expected, partial(upstream.open_blob, repository, digest)), False

    async def _stored(self, digest: Digest) -> bytes | StoredBlob | None:
        """What the store holds, small content in memory. Raises Unavailable if the disk fails."""
        small = self._blobs.recall(digest)
        if small is not None:
            return small
        try:
            stored = await self._blobs.open(digest)
            if stored is None:
                return None
            if stored.size <= SMALL_BYTES:
                with stored:
                    return await self._blobs.read(digest)
            return stored
        except OSError as error:
            log.error("cannot read %s: %s", digest, error)
            raise Unavailable("the cache cannot read from its disk") from error

    async def _stored_size(self, digest: Digest) -> int | None:
        content = await self._stored(digest)
        if isinstance(content, StoredBlob):
            with content:
                return content.size
        return None if content is None else len(content)

    def _proven(self, repository: Repository, digest: Digest) -> bool:
        link = self._index.link(repository, digest)
        return link is not None and link.held

    async def _make_sure(self, upstream: Registry, repository: Repository, digest: Digest) -> None:
        """Returns if this repository has the blob. Raises RegistryError."""
        if not self._proven(repository, digest):
            await self._prove(upstream, repository, digest)

    async def _is_as_told(self, upstream: Registry, repository: Repository, stored: StoredBlob) -> bool:
        """Whether a stored blob is the one that this repository has. Raises RegistryError.

        Where upstream has to be asked, its size is compared too: after the loss of the index nobody else knows it. One
        of another size is read through.
        """
        if self._proven(repository, stored.digest):
            return True
        told = await self._prove(upstream, repository, stored.digest)
        return told == stored.size or await self._blobs.verify(stored)

    def _put_proof(self, repository: Repository, digest: Digest, told: int) -> None:
        """Record that a repository holds a blob. A manifest that is one of its blobs too stays known as a manifest.

        A size that a manifest has told stays: what upstream says is not verified, and may be wrong for a moment.
        """
        if not self._proven(repository, digest):
            size = self._expected_size(repository, digest)
            size = told if size is None else size
            self._index.put_link(repository, Descriptor(digest, _OCTETS, size), held=True)

    async def _prove(self, upstream: Registry, repository: Repository, digest: Digest) -> int:
        """Make sure that this repository has the blob, and return its size in bytes. Raises RegistryError."""
        return await self._proving.run((repository, digest), lambda: self._ask(upstream, repository, digest))

    async def _ask(self, upstream: Registry, repository: Repository, digest: Digest) -> int:
        key = (repository, digest)
        now = self._clock.monotonic()
        self._negatives.check(key, now)
        try:
            size = await upstream.head_blob(repository, digest)
        except RegistryError as error:
            self._negatives.remember(key, error, now)
            raise
        told = self._expected_size(repository, digest)
        size = size if told is None else told  # 200 is soon said, by the page of a login too; a manifest is verified.
        if size is None:
            raise Unavailable(f"{upstream.name} does not tell the size of this blob")
        self._put_proof(repository, digest, size)
        return size
