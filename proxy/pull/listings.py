"""Lists of tags and of referrers: upstream's answer as it is, kept for a short while in memory.

They change without notice, so they are as fresh as tags are; while upstream is in trouble an older one is given, and
said to be stale. That there is no list is an answer too, and never made up: a registry without the referrers API says
404, on which clients look for signatures under a tag (OCI distribution spec, "Referrers Tag Schema").
"""

from __future__ import annotations

from typing import Final, NamedTuple

from proxy.clock import Clock
from proxy.collapse import Collapser
from proxy.lru import Lru
from proxy.oci.errors import RegistryError
from proxy.oci.listings import Listing
from proxy.oci.names import Digest, Repository
from proxy.policy.negatives import Negatives
from proxy.pull.outcome import Outcome, reason_for
from proxy.pull.patience import Patience
from proxy.upstream.fallback import Registry

KEPT_BYTES: Final = 8 * 1024 * 1024


class ListingKey(NamedTuple):
    """Which page of which list: the tags of a repository or, with a digest, what refers to that."""

    repository: Repository
    subject: Digest | None
    query: str


class _Kept(NamedTuple):
    listing: Listing
    asked_at: float


class Listings:
    """Lists of any repository."""

    def __init__(self, negatives: Negatives, clock: Clock) -> None:
        self._negatives = negatives
        self._clock = clock
        self._kept: Lru[ListingKey, _Kept] = Lru(KEPT_BYTES, lambda kept: len(kept.listing.body) + 1024)
        self._asking: Collapser[ListingKey, Listing] = Collapser()

    async def aclose(self) -> None:
        """Stop what is being asked."""
        await self._asking.aclose()

    async def get(self, upstream: Registry, key: ListingKey, patience: Patience) -> tuple[Listing, Outcome]:
        """A page of a list. Raises RegistryError."""
        kept = self._kept.get(key)
        age = self._clock.monotonic() - kept.asked_at if kept else 0.0
        if kept is not None and age < upstream.window:
            return kept.listing, Outcome("hit", age=int(age))
        collapsed = key in self._asking
        asked = self._asking.run(key, lambda: self._ask(upstream, key))
        try:
            listing = await patience.wait(asked, holding=kept is not None or self._negatives.last(key) is not None)
        except RegistryError as error:
            if kept is None:
                raise self._negatives.instead_of(error, key) from None
            return kept.listing, Outcome.stale(reason_for(error), int(age))
        return listing, Outcome("miss", collapsed=collapsed)

    async def _ask(self, upstream: Registry, key: ListingKey) -> Listing:
        self._negatives.check(key, self._clock.monotonic())
        try:
            listing = await upstream.list(key.repository, key.subject, key.query)
        except RegistryError as error:
            self._negatives.remember(key, error, self._clock.monotonic())
            raise
        self._negatives.forget(key)
        self._kept.put(key, _Kept(listing, self._clock.monotonic()))
        return listing
