"""Whether a repository may be served at all: asked before anything else, for what is cached too."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Literal

from proxy.clock import Clock
from proxy.collapse import Collapser
from proxy.oci.errors import Denied, TooManyRequests, Unavailable
from proxy.oci.names import Reference, Repository
from proxy.policy import access
from proxy.policy.access import Admission, Visibility
from proxy.store.index import Index
from proxy.upstream.client import Upstream

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 2.0
"""How long a client waits while something known is found out again."""


class Doorkeeper:
    """Lets repositories through that anybody could pull, or all of them if the operator says so."""

    def __init__(self, private: Literal["deny", "serve"], remember: float, index: Index, clock: Clock) -> None:
        self._private = private
        self._remember = remember
        self._index = index
        self._clock = clock
        self._asking: Collapser[Repository, Visibility] = Collapser()

    async def aclose(self) -> None:
        """Stop what is being asked."""
        await self._asking.aclose()

    async def admit(self, upstream: Upstream, repository: Repository, reference: Reference | None) -> None:
        """Returns if the repository may be served; raises Denied, or why upstream could not say."""
        known = self._index.visibility(repository)
        admission = access.decide(self._private, known, self._clock.time(), self._remember)
        if admission is Admission.ASK:
            admission = await self._ask(upstream, repository, reference, known)
        if admission is Admission.DENY:
            raise Denied(_refusal(upstream, repository))

    async def _ask(
        self, upstream: Upstream, repository: Repository, reference: Reference | None, known: Visibility | None
    ) -> Admission:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS if known else None):
                found = await self._asking.run(repository, lambda: self._find_out(upstream, repository, reference))
        except (Unavailable, TooManyRequests, TimeoutError):
            admission = access.decide_unasked(known)
            if admission is Admission.ASK:
                raise
            return admission
        return access.decide_unasked(found)

    async def _find_out(self, upstream: Upstream, repository: Repository, reference: Reference | None) -> Visibility:
        visibility = Visibility(await upstream.is_public(repository, reference), self._clock.time())
        self._index.put_visibility(repository, visibility)
        return visibility


def _refusal(upstream: Upstream, repository: Repository) -> str:
    if not upstream.has_credentials:
        return f"requested access to the resource is denied: {repository} does not exist or is private"
    return (
        f"requested access to the resource is denied: {repository} is private or does not exist, and this cache serves "
        'public repositories only (its setting access.private is "deny")'
    )
