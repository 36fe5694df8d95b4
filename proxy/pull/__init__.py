"""The use cases: what happens when a client pulls (DESIGN section 3).

A digest is never stale. A tag is answered from what is stored while fresh, then asked for again with a free HEAD; only
a digest that we do not hold is fetched, by digest, once. While we hold an answer, upstream's trouble is not the
client's: it gets the stale one, and is told so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from proxy.oci.errors import RegistryError
from proxy.oci.listings import Listing
from proxy.oci.manifests import Descriptor, Manifest
from proxy.oci.names import Digest, Reference, Repository
from proxy.policy.quota.purpose import NOBODY, Asker, Purpose
from proxy.pull.admission import Doorkeeper
from proxy.pull.blobs import BlobAnswer, BlobPulls
from proxy.pull.catalog import Catalog
from proxy.pull.errands import Errands
from proxy.pull.listings import ListingKey, Listings
from proxy.pull.manifests import Manifests
from proxy.pull.outcome import Outcome, reason_for
from proxy.pull.patience import Patience
from proxy.pull.tags import Resolution, Tags
from proxy.store.room.usage import Usage
from proxy.upstream.fallback import Registry

__all__ = ["BlobAnswer", "Outcome", "Pull"]


class Pull:
    """What the server asks for on behalf of a client. Every method raises RegistryError, and nothing else."""

    def __init__(
        self,
        upstreams: Mapping[str, Registry],
        door: Doorkeeper,
        tags: Tags,
        manifests: Manifests,
        blobs: BlobPulls,
        listings: Listings,
        catalog: Catalog,
        usage: Usage,
        errands: Errands,
    ) -> None:
        self._errands = errands
        self._upstreams = upstreams
        self._door = door
        self._tags = tags
        self._manifests = manifests
        self._blobs = blobs
        self._listings = listings
        self._catalog = catalog
        self._usage = usage

    async def describe_manifest(
        self, repository: Repository, reference: Reference, accept: Sequence[str], asker: Asker = NOBODY
    ) -> tuple[Descriptor, Outcome]:
        """What HEAD of a manifest answers. Costs no pull."""
        found, outcome = await self._described(repository, reference, accept, asker)
        self._usage.touch(found.digest)
        return found, outcome

    async def manifest(
        self, repository: Repository, reference: Reference, accept: Sequence[str], asker: Asker = NOBODY
    ) -> tuple[Manifest, Outcome]:
        """A manifest, whole and verified."""
        manifest, outcome = await self._manifest(repository, reference, accept, asker)
        self._usage.touch(manifest.digest)
        return manifest, outcome

    def warnings(self, repository: Repository, digest: Digest) -> tuple[str, ...]:
        """What upstream wants people to know of a manifest: values of Warning headers."""
        return self._upstreams[repository.registry].warnings(repository, digest)

    async def listing(self, repository: Repository, subject: Digest | None, query: str) -> tuple[Listing, Outcome]:
        """A page of a repository's tags or, with a subject, of what refers to that."""
        patience = Patience()
        upstream = await self._admitted(repository, subject, patience)
        return await self._listings.get(upstream, ListingKey(repository, subject, query), patience)

    async def catalog(self, count: int, after: str) -> tuple[list[str], bool]:
        """Names of at most `count` repositories that we hold something of, and whether there are more after them."""
        return await self._catalog.page(count, after)

    async def blob_size(self, repository: Repository, digest: Digest) -> tuple[int, Outcome]:
        """What HEAD of a blob answers, in bytes. Never starts a fill."""
        upstream = await self._admitted(repository, None, Patience())
        size, outcome = await self._blobs.describe(upstream, repository, digest)
        self._usage.touch(digest)
        return size, outcome

    @asynccontextmanager
    async def blob(self, repository: Repository, digest: Digest) -> AsyncIterator[BlobAnswer]:
        """A blob that can be sent while the context lasts."""
        upstream = await self._admitted(repository, None, Patience())
        async with self._blobs.open(upstream, repository, digest) as answer:
            self._usage.touch(digest)
            yield answer

    async def _described(
        self, repository: Repository, reference: Reference, accept: Sequence[str], asker: Asker
    ) -> tuple[Descriptor, Outcome]:
        patience = Patience()
        upstream = await self._admitted(repository, reference, patience)
        if isinstance(reference, Digest):
            return await self._manifests.describe(upstream, repository, reference)
        resolution = await self._tags.resolve(upstream, repository, reference, accept, patience)
        digest = resolution.target.digest
        reason = self._errands.reason_to_save(upstream, repository)
        if reason is not None:
            previous = await self._instead(upstream, repository, resolution)
            # The client will ask for the digest that it gets here: it has to be one we hold.
            if previous is not None and not await self._brought(upstream, repository, digest, asker, patience):
                self._errands.saved(upstream, reason)
                return previous.descriptor, Outcome.stale(reason, resolution.outcome.age or 0)
        if resolution.outcome.kind == "miss":
            self._errands.expect(upstream, repository, digest, "changed" if resolution.previous else "new")
        return resolution.target, resolution.outcome

    async def _manifest(
        self, repository: Repository, reference: Reference, accept: Sequence[str], asker: Asker
    ) -> tuple[Manifest, Outcome]:
        patience = Patience()
        upstream = await self._admitted(repository, reference, patience)
        if isinstance(reference, Digest):
            return await self._manifests.get(upstream, repository, reference, Purpose(asker, "digest"))
        resolution = await self._tags.resolve(upstream, repository, reference, accept, patience)
        digest = resolution.target.digest
        stored = await self._manifests.stored(repository, digest)
        if stored is not None and resolution.previous is None:  # However little patience is left.
            return stored, resolution.outcome
        previous = await self._previous(repository, resolution)
        reason = self._errands.reason_to_save(upstream, repository)
        if stored is not None:
            instead = await self._instead(upstream, repository, resolution) if reason is not None else None
            if instead is None or reason is None or upstream.may_pull_elsewhere():
                return stored, resolution.outcome
            self._errands.saved(upstream, reason)
            return instead, Outcome.stale(reason, resolution.outcome.age or 0)
        saves = reason == "quota-saved"
        if previous is not None and saves and not await self._brought(upstream, repository, digest, asker, patience):
            self._errands.saved(upstream, "quota-saved")
            return previous, Outcome.stale("quota-saved", resolution.outcome.age or 0)
        purpose = (
            _changed(asker) if previous is not None else Purpose(asker, "changed" if resolution.previous else "new")
        )
        fetching = self._manifests.fetch(upstream, repository, digest, purpose)
        try:
            manifest, outcome = await patience.wait(fetching, holding=previous is not None)
        except RegistryError as error:
            if previous is None:
                raise
            return previous, Outcome.stale(reason_for(error), resolution.outcome.age or 0)
        if outcome.kind == "hit":
            return manifest, resolution.outcome
        return manifest, replace(outcome, fallback=resolution.outcome.fallback)

    async def _admitted(self, repository: Repository, reference: Reference | None, patience: Patience) -> Registry:
        upstream = self._upstreams[repository.registry]
        await self._door.admit(upstream, repository, reference, patience)
        return upstream

    async def _brought(
        self, upstream: Registry, repository: Repository, digest: Digest, asker: Asker, patience: Patience
    ) -> bool:
        """Whether a fallback gave us this manifest in time, since the upstream itself would refuse it."""
        if not upstream.may_pull_elsewhere():
            return False
        try:
            getting = self._manifests.get(upstream, repository, digest, _changed(asker))
            await patience.wait(getting, holding=True)
        except RegistryError:
            return False
        return True

    async def _instead(self, upstream: Registry, repository: Repository, resolution: Resolution) -> Manifest | None:
        """What the tag pointed to before, where it serves clients better than what it points to now."""
        previous = await self._previous(repository, resolution)
        if previous is None:
            return None
        if await self._manifests.stored(repository, resolution.target.digest) is None:
            return previous
        if not self._errands.refuses(upstream, repository):
            return None
        better = await self._manifests.better(repository, resolution.target, previous.descriptor)
        return previous if better is not None and better.digest == previous.digest else None

    async def _previous(self, repository: Repository, resolution: Resolution) -> Manifest | None:
        """What the tag pointed to before, if we hold it."""
        if resolution.previous is None:
            return None
        return await self._manifests.stored(repository, resolution.previous.digest)


def _changed(asker: Asker) -> Purpose:
    """A pull of what a tag points to now, while we hold what it pointed to before."""
    return Purpose(asker, "changed", "changed")
