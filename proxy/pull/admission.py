"""Whether a repository may be served at all: asked before anything else, for what is cached too."""

from __future__ import annotations

import logging
from typing import Final, Literal

from proxy.clock import Clock
from proxy.collapse import Collapser
from proxy.lru import Lru
from proxy.oci.errors import Denied, TooManyRequests, Unavailable
from proxy.oci.names import Reference, Repository
from proxy.policy import access
from proxy.policy.access import Admission, Visibility
from proxy.policy.freshness import FALLBACK_SECONDS
from proxy.pull.patience import Patience
from proxy.store.index import Index
from proxy.upstream.fallback import Registry

log = logging.getLogger(__name__)

_MAX_ELSEWHERE: Final = 10_000
"""Repositories that are public at a fallback, while upstream cannot be asked: remembered for FALLBACK_SECONDS."""


class Doorkeeper:
    """Lets repositories through that anybody could pull, or all of them if the operator says so."""

    def __init__(self, private: Literal["deny", "serve"], remember: float, index: Index, clock: Clock) -> None:
        self._private = private
        self._remember = remember
        self._index = index
        self._clock = clock
        self._elsewhere: Lru[Repository, float] = Lru(_MAX_ELSEWHERE)
        self._asking: Collapser[Repository, Visibility] = Collapser()

    async def aclose(self) -> None:
        """Stop what is being asked."""
        await self._asking.aclose()

    async def admit(
        self, upstream: Registry, repository: Repository, reference: Reference | None, patience: Patience
    ) -> None:
        """Returns if the repository may be served; raises Denied, or why upstream could not say."""
        known = self._index.visibility(repository)
        if known is None and self._clock.monotonic() < (self._elsewhere.get(repository) or 0.0):
            return
        admission = access.decide(self._private, known, self._clock.time(), self._remember)
        if admission is Admission.ASK:
            admission = await self._ask(upstream, repository, reference, known, patience)
        if admission is Admission.DENY:
            raise Denied(_refusal(upstream, repository))

    def foresee(self, repository: Repository) -> bool | None:
        """Whether the repository would be let through; None if upstream would be asked first."""
        known = self._index.visibility(repository)
        admission = access.decide(self._private, known, self._clock.time(), self._remember)
        return None if admission is Admission.ASK else admission is Admission.SERVE

    def is_known_to_be_served(self, repository: Repository) -> bool:
        """Whether the repository would be let through for all that is known now; asks nobody."""
        known = self._index.visibility(repository)
        return self._private == "serve" or access.decide_unasked(known) is Admission.SERVE

    async def _ask(
        self,
        upstream: Registry,
        repository: Repository,
        reference: Reference | None,
        known: Visibility | None,
        patience: Patience,
    ) -> Admission:
        asked = self._asking.run(repository, lambda: self._find_out(upstream, repository, reference, known))
        try:
            found = await patience.wait(asked, holding=known is not None)
        except (Unavailable, TooManyRequests):
            admission = access.decide_unasked(known)
            if admission is Admission.ASK:
                raise
            return admission
        return access.decide_unasked(found)

    async def _find_out(
        self, upstream: Registry, repository: Repository, reference: Reference | None, known: Visibility | None
    ) -> Visibility:
        said = await upstream.is_public(repository, reference)
        visibility = Visibility(said.what, self._clock.time())
        if said.source is None:
            self._index.put_visibility(repository, visibility)
            self._note_vanished(repository, known, visibility)
            return visibility
        if known is not None:  # What upstream itself last said stands, above all that something is private.
            return known
        self._elsewhere.put(repository, self._clock.monotonic() + FALLBACK_SECONDS)
        return visibility

    def _note_vanished(self, repository: Repository, known: Visibility | None, found: Visibility) -> None:
        """Docker Hub says of a repository that was removed what it says of one that was made private."""
        if found.public:
            self._index.drop_vanished(repository, None)
        elif known is not None and known.public and self._index.put_vanished(repository, None, Denied.code):
            log.warning("%s was public and is private now, or removed: it is not served any more", repository)


def _refusal(upstream: Registry, repository: Repository) -> str:
    if not upstream.has_credentials:
        return f"requested access to the resource is denied: {repository} does not exist or is private"
    return (
        f"requested access to the resource is denied: {repository} is private or does not exist, and this cache serves "
        'public repositories only (its setting access.private is "deny")'
    )
