"""Manifests by digest: from the store, else fetched once, verified, stored and linked to their repository.

Two requests for one digest share one fetch. A repository is given what came through another one only after upstream
was asked, with a free HEAD, whether this repository has it too (PROTOCOL 8.4).
"""

from __future__ import annotations

import logging
from typing import Final

from proxy.clock import Clock
from proxy.collapse import Collapser
from proxy.oci.errors import Denied, ManifestUnknown, NameUnknown, RegistryError
from proxy.oci.manifests import ACCEPT_ALL, Descriptor, Manifest, children
from proxy.oci.names import Digest, Reference, Repository
from proxy.policy.negatives import Negatives
from proxy.policy.quota import Gate
from proxy.pull.outcome import Outcome
from proxy.store.blobs import Blobs
from proxy.store.index import Index
from proxy.upstream.client import Upstream

log = logging.getLogger(__name__)

_NOT_HERE: Final = (ManifestUnknown, NameUnknown, Denied)
"""What upstream says of one repository: no answer for another one."""


class Manifests:
    """Manifests by digest, of any repository."""

    def __init__(self, blobs: Blobs, index: Index, negatives: Negatives, clock: Clock) -> None:
        self._blobs = blobs
        self._index = index
        self._negatives = negatives
        self._clock = clock
        self._fetching: Collapser[tuple[Repository, Reference, str], Manifest] = Collapser()
        self._fetching_for: dict[Digest, Repository] = {}

    async def aclose(self) -> None:
        """Stop what is being fetched."""
        await self._fetching.aclose()

    async def stored(self, repository: Repository, digest: Digest) -> Manifest | None:
        """The manifest, if we hold its bytes and this repository was shown to have it. Asks nobody."""
        link = self._index.link(repository, digest)
        if link is None or not link.held:
            return None
        body = await self._blobs.read(digest)
        return None if body is None else Manifest(digest, link.descriptor.media_type, body)

    async def describe(self, upstream: Upstream, repository: Repository, digest: Digest) -> tuple[Descriptor, Outcome]:
        """What HEAD answers: from what is known, else by a free HEAD upstream. Raises RegistryError."""
        link = self._index.link(repository, digest)
        if link is not None and link.held and link.descriptor.size is not None:
            return link.descriptor, Outcome("hit")
        return await self._prove(upstream, repository, digest), Outcome("miss")

    async def get(self, upstream: Upstream, repository: Repository, digest: Digest) -> tuple[Manifest, Outcome]:
        """The manifest, fetched if need be. Raises RegistryError."""
        manifest, outcome = await self.stored(repository, digest), Outcome("hit")
        if manifest is None and await self._comes_through_another(repository, digest):
            await self._prove(upstream, repository, digest)
            manifest = await self.stored(repository, digest)
            if manifest is not None:
                self.adopt(repository, manifest)
        if manifest is None:
            manifest, outcome = await self.fetch(upstream, repository, digest)
        return manifest, outcome

    async def fetch(
        self, upstream: Upstream, repository: Repository, reference: Reference, accept: str = ACCEPT_ALL
    ) -> tuple[Manifest, Outcome]:
        """The manifest from upstream: a counted pull, shared by all who ask meanwhile. Raises RegistryError."""
        owner = self._fetching_for.setdefault(reference, repository) if isinstance(reference, Digest) else repository
        key = (owner, reference, accept)
        collapsed = key in self._fetching
        try:
            manifest = await self._fetching.run(key, lambda: self._fetch(upstream, repository, reference, accept))
        except _NOT_HERE:
            if owner == repository:
                raise
            return await self.fetch(upstream, repository, reference, accept)
        if owner != repository:
            self.adopt(repository, manifest)
        return manifest, Outcome("miss", stored=True, collapsed=collapsed, counted=0 if collapsed else 1)

    def adopt(self, repository: Repository, manifest: Manifest) -> None:
        """Record that a repository has this manifest, and what the manifest names."""
        for child in children(manifest.body):
            self._index.put_link(repository, child, held=False)
        self._index.put_link(repository, manifest.descriptor, held=True)

    async def _fetch(self, upstream: Upstream, repository: Repository, reference: Reference, accept: str) -> Manifest:
        key = (repository, reference, accept)
        now = self._clock.monotonic()
        try:
            self._negatives.check(key, now)
            await self._pass_gate(upstream, repository, reference, accept)
            manifest = await upstream.get_manifest(repository, reference, accept)
        except RegistryError as error:
            self._negatives.remember(key, error, now)
            raise
        finally:
            if isinstance(reference, Digest):
                del self._fetching_for[reference]
        await self._store(manifest)
        self.adopt(repository, manifest)
        return manifest

    async def _pass_gate(self, upstream: Upstream, repository: Repository, reference: Reference, accept: str) -> None:
        """Raises TooManyRequests while the pull limit is known to be reached; when that is unsure, a HEAD tells."""
        now = self._clock.monotonic()
        upstream.limits.check(Gate.PULLS, upstream.name, now)
        if upstream.limits.probe_due(now):
            await upstream.head_manifest(repository, reference, accept)
            upstream.limits.probed(now)
            upstream.limits.check(Gate.PULLS, upstream.name, now)

    async def _store(self, manifest: Manifest) -> None:
        try:
            await self._blobs.put(manifest.digest, manifest.body)
        except OSError as error:
            log.error("cannot store manifest %s: %s", manifest.digest, error)
        else:
            self._index.put_blob(manifest.digest, len(manifest.body))

    async def _comes_through_another(self, repository: Repository, digest: Digest) -> bool:
        """Whether we hold the digest, or are fetching it, without proof that this repository has it."""
        link = self._index.link(repository, digest)
        if link is not None and link.held:
            return False
        fetching_for = self._fetching_for.get(digest, repository)
        return fetching_for != repository or await self._blobs.read(digest) is not None

    async def _prove(self, upstream: Upstream, repository: Repository, digest: Digest) -> Descriptor:
        """Ask upstream for this digest in this repository, for free, and remember its answer. Raises RegistryError."""
        key = (repository, digest, "HEAD")
        now = self._clock.monotonic()
        self._negatives.check(key, now)
        upstream.limits.check(Gate.REQUESTS, upstream.name, now)
        try:
            descriptor = await upstream.head_manifest(repository, digest)
        except RegistryError as error:
            self._negatives.remember(key, error, now)
            raise
        self._index.put_link(repository, descriptor, held=True)
        return descriptor
