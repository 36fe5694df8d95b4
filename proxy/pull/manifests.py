"""Manifests by digest: from the store, else fetched once, verified, stored and linked to their repository.

Requests for one digest share one fetch, through whatever repository they come. A repository is given what came through
another one only after upstream was asked, with a free HEAD, whether this repository has it too (PROTOCOL 8.4).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Final, NamedTuple

from proxy.clock import Clock
from proxy.collapse import Collapser
from proxy.oci.errors import Denied, ManifestUnknown, NameUnknown, RegistryError
from proxy.oci.manifests import ACCEPT_ALL, Descriptor, Manifest, children, declared_media_type, platforms
from proxy.oci.names import Digest, Reference, Repository
from proxy.policy.freshness import serves_more
from proxy.policy.negatives import Negatives
from proxy.policy.quota.purpose import Purpose
from proxy.pull.errands import Errands
from proxy.pull.outcome import Outcome
from proxy.store.blobs import Blobs
from proxy.store.index import Index
from proxy.store.room import Claim, Claims, NotStored
from proxy.store.room.removal import Removal
from proxy.upstream.fallback import Registry

log = logging.getLogger(__name__)

_NOT_HERE: Final = (ManifestUnknown, NameUnknown, Denied)
"""What upstream says of one repository: no answer for another one."""

_OCTETS: Final = "application/octet-stream"
"""The type under which blobs are linked: proof that a repository has such a blob, and none of a manifest."""


class _Acquired(NamedTuple):
    """A manifest, and the repository for which it was had: `counted` by a GET, `waited` for quota or not, else from
    the store."""

    manifest: Manifest
    repository: Repository
    counted: bool
    waited: bool = False


class Manifests:
    """Manifests by digest, of any repository."""

    def __init__(
        self,
        blobs: Blobs,
        claims: Claims,
        removal: Removal,
        index: Index,
        negatives: Negatives,
        errands: Errands,
        clock: Clock,
    ) -> None:
        self._errands = errands
        self._blobs = blobs
        self._claims = claims
        self._removal = removal
        self._index = index
        self._negatives = negatives
        self._clock = clock
        self._acquiring: Collapser[tuple[str, Reference, str], _Acquired] = Collapser()
        self._proving: Collapser[tuple[Repository, Digest], Descriptor] = Collapser()

    async def settled(self) -> None:
        """Wait for what is being asked and fetched now."""
        await self._acquiring.settled()
        await self._proving.settled()

    async def aclose(self) -> None:
        """Stop what is being asked and fetched."""
        await self._acquiring.aclose()
        await self._proving.aclose()

    async def stored(self, repository: Repository, digest: Digest) -> Manifest | None:
        """The manifest, if we hold its bytes and this repository was shown to have it. Asks nobody."""
        proven = self._proven(repository, digest)
        body = await self._body(digest) if proven is not None else None
        return None if proven is None or body is None else _manifest(proven, body)

    async def better(
        self, repository: Repository, target: Descriptor, previous: Descriptor | None
    ) -> Descriptor | None:
        """Of what a tag points to and pointed to before, what serves more clients by what we hold alone, if any."""
        held = [each for each in (target, previous) if each is not None and await self.stored(repository, each.digest)]
        if len(held) == 2 and serves_more(await self._covered(held[1].digest), await self._covered(target.digest)):
            return previous
        return held[0] if held else None

    async def describe(self, upstream: Registry, repository: Repository, digest: Digest) -> tuple[Descriptor, Outcome]:
        """What HEAD answers: from what is known, else by a free HEAD upstream. Raises RegistryError."""
        proven = self._proven(repository, digest)
        if proven is not None and proven.size is not None:
            return proven, Outcome("hit")
        collapsed = (repository, digest) in self._proving
        return await self._prove(upstream, repository, digest), Outcome("miss", collapsed=collapsed)

    async def get(
        self, upstream: Registry, repository: Repository, digest: Digest, purpose: Purpose
    ) -> tuple[Manifest, Outcome]:
        """The manifest, fetched if need be. Raises RegistryError."""
        manifest = await self.stored(repository, digest)
        if manifest is not None:
            return manifest, Outcome("hit")
        return await self.fetch(upstream, repository, digest, purpose)

    async def fetch(
        self,
        upstream: Registry,
        repository: Repository,
        reference: Reference,
        purpose: Purpose,
        accept: str = ACCEPT_ALL,
    ) -> tuple[Manifest, Outcome]:
        """The manifest from upstream: a counted pull, shared by all who ask meanwhile. Raises RegistryError."""
        self._negatives.check(_negative_key(repository, reference, accept), self._clock.monotonic())
        key = (repository.registry if isinstance(reference, Digest) else str(repository), reference, accept)
        collapsed = key in self._acquiring
        start = partial(self._acquire, upstream, repository, reference, purpose, accept)
        try:
            acquired = await self._acquiring.run(key, start)
        except _NOT_HERE:
            if not collapsed:
                raise
            # Perhaps said of another repository; if it was of this one, it is remembered.
            return await self.fetch(upstream, repository, reference, purpose, accept)
        manifest = acquired.manifest
        if acquired.repository != repository:
            if self._proven(repository, manifest.digest) is None:
                await self._prove(upstream, repository, manifest.digest)
            self._adopt(repository, manifest)
        if not acquired.counted:
            return manifest, Outcome("hit")
        counted = 0 if collapsed else 1
        return manifest, Outcome("miss", stored=True, collapsed=collapsed, counted=counted, waited=acquired.waited)

    def confirm(self, repository: Repository, said: Descriptor) -> Descriptor:
        """Record what a HEAD said of a manifest in this repository; what it left out stays as it was known."""
        known = self._proven(repository, said.digest)
        if known is not None:
            size = known.size if said.size is None else said.size
            said = Descriptor(said.digest, said.media_type or known.media_type, size)
        self._index.put_link(repository, said, held=True)
        self._negatives.forget(_negative_key(repository, said.digest))
        return said

    async def _acquire(
        self, upstream: Registry, repository: Repository, reference: Reference, purpose: Purpose, accept: str
    ) -> _Acquired:
        """Runs once at a time for a digest, so what is not in the store now, nobody else is bringing there."""
        manifest = await self._found(upstream, repository, reference) if isinstance(reference, Digest) else None
        if manifest is not None:
            self._adopt(repository, manifest)
            return _Acquired(manifest, repository, counted=False)
        manifest, waited = await self._fetch(upstream, repository, reference, purpose, accept)
        self._adopt(repository, manifest)
        return _Acquired(manifest, repository, counted=True, waited=waited)

    async def _found(self, upstream: Registry, repository: Repository, digest: Digest) -> Manifest | None:
        """The manifest from the store, to which it came through another repository or before the index was lost."""
        body = await self._body(digest)
        if body is None:
            return None
        proven = self._proven(repository, digest) or await self._prove(upstream, repository, digest)
        return _manifest(proven, body)

    async def _fetch(
        self, upstream: Registry, repository: Repository, reference: Reference, purpose: Purpose, accept: str
    ) -> tuple[Manifest, bool]:
        """The manifest, by a counted pull, and whether that had to wait for quota."""
        try:
            manifest, waited = await self._errands.fetch(upstream, repository, reference, purpose, accept)
        except RegistryError as error:
            key = _negative_key(repository, reference, accept)
            self._negatives.remember(key, error, self._clock.monotonic())
            raise
        await self._store(manifest)
        return manifest, waited

    async def _store(self, manifest: Manifest) -> None:
        """On disk if there is room; a small one is kept in memory in any case."""
        self._blobs.remember(manifest.digest, manifest.body)
        claim = self._claims.open()
        try:
            await claim.grow(len(manifest.body))
            await self._put(claim, manifest)
        except NotStored as error:
            log.warning("cannot store manifest %s: %s", manifest.digest, error.message)
        else:
            self._removal.stored(manifest.digest, len(manifest.body), manifest=True)
        finally:
            claim.release()

    async def _put(self, claim: Claim, manifest: Manifest) -> None:
        """Raises NotStored."""
        while True:
            try:
                return await self._blobs.put(manifest.digest, manifest.body)
            except OSError as error:
                await claim.renew(error)

    async def _covered(self, digest: Digest) -> frozenset[str] | None:
        """For which of the platforms that an index lists we hold the manifest; None if it lists none."""
        listed = platforms(await self._body(digest) or b"")
        if not listed:
            return None
        return frozenset(platform for child, platform in listed.items() if self._index.blob_size(child) is not None)

    async def _body(self, digest: Digest) -> bytes | None:
        """The bytes, if we hold them: what cannot be read is not held."""
        try:
            return await self._blobs.read(digest)
        except OSError as error:
            log.error("cannot read manifest %s: %s", digest, error)
            return None

    def _adopt(self, repository: Repository, manifest: Manifest) -> None:
        """Record that a repository has this manifest, and what the manifest names."""
        for child in children(manifest.body):
            self._index.put_link(repository, child, held=False)
        self._index.put_link(repository, manifest.descriptor, held=True)

    def _proven(self, repository: Repository, digest: Digest) -> Descriptor | None:
        """What upstream said of this manifest in this repository, if it ever did."""
        link = self._index.link(repository, digest)
        if link is None or not link.held or link.descriptor.media_type == _OCTETS:
            return None
        return link.descriptor

    async def _prove(self, upstream: Registry, repository: Repository, digest: Digest) -> Descriptor:
        """Ask upstream for this digest in this repository, for free, and remember its answer. Raises RegistryError."""
        self._negatives.check(_negative_key(repository, digest), self._clock.monotonic())
        return await self._proving.run((repository, digest), lambda: self._ask(upstream, repository, digest))

    async def _ask(self, upstream: Registry, repository: Repository, digest: Digest) -> Descriptor:
        try:
            said = await upstream.head_manifest(repository, digest)
        except RegistryError as error:
            self._negatives.remember(_negative_key(repository, digest), error, self._clock.monotonic())
            raise
        return self.confirm(repository, said)


def _manifest(proven: Descriptor, body: bytes) -> Manifest:
    """A stored manifest; some registries tell its type in the answer to a GET alone, or not at all."""
    return Manifest(proven.digest, proven.media_type or declared_media_type(body) or _OCTETS, body)


def _negative_key(repository: Repository, reference: Reference, accept: str = ACCEPT_ALL) -> tuple[object, ...]:
    """Not the key of a blob with this digest: that a repository has no such blob says nothing of its manifests."""
    return ("manifest", repository, reference, accept)
