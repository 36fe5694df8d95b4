"""Counted pulls: what each is for, and whether it may be made.

Clients resolve a tag with HEAD and then ask for the digest, so why that digest is needed is remembered from the HEAD.
Likewise the manifests that a fetched index names: a pull that has begun is not stopped half-way (`policy.quota`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from proxy.clock import Clock
from proxy.lru import Lru
from proxy.oci.errors import TooManyRequests
from proxy.oci.manifests import Manifest, children
from proxy.oci.names import Digest, Reference, Repository
from proxy.policy.quota.governor import Decision
from proxy.policy.quota.purpose import UNKNOWN_PURPOSE, Purpose, Why
from proxy.pull.outcome import Reason
from proxy.quota.governor import Governor
from proxy.upstream.fallback import Registry

BEGUN_SECONDS: Final = 600.0
"""For how long after its index was fetched a pull counts as begun."""
_MAX_BEGUN: Final = 10_000
_MAX_EXPECTED: Final = 10_000


class Errands:
    """Makes the counted pulls of all repositories."""

    def __init__(self, governor: Governor, clock: Clock) -> None:
        self._governor = governor
        self._clock = clock
        self._begun: Lru[tuple[str, Digest], float] = Lru(_MAX_BEGUN)
        self._expected: Lru[tuple[Repository, Digest], Why] = Lru(_MAX_EXPECTED)

    def expect(self, upstream: Registry, repository: Repository, digest: Digest, why: Why) -> None:
        """A client was told of this digest, which was not known: it will ask for it, for this reason.

        If it could be fetched now, the pull has begun: what was promised is not refused a moment later.
        """
        self._expected.put((repository, digest), why)
        if not self.refuses(upstream, repository):
            self._begun.put((repository.registry, digest), self._clock.monotonic())

    def refuses(self, upstream: Registry, repository: Repository) -> bool:
        """Whether a pull of what we hold nothing of would not pass now."""
        if not upstream.may_pull():
            return True
        return self._governor.decide(upstream.account, repository, UNKNOWN_PURPOSE) is not Decision.PASS

    def reason_to_save(self, upstream: Registry, repository: Repository) -> Reason | None:
        """Why a tag that has changed is answered with what we hold, if it is."""
        if not upstream.may_pull():
            return "limited"
        return "quota-saved" if self._governor.saves(upstream.account, repository) else None

    def saved(self, upstream: Registry, reason: Reason) -> None:
        """One was, for this reason."""
        if reason == "quota-saved":
            self._governor.saved(upstream.account)

    async def fetch(
        self, upstream: Registry, repository: Repository, reference: Reference, purpose: Purpose, accept: str
    ) -> tuple[Manifest, bool]:
        """The manifest, and whether it had to wait for quota. Raises RegistryError."""
        purpose = self._completed(upstream, repository, reference, purpose)
        elsewhere = upstream.may_pull_elsewhere()
        kept, waited = None, False
        try:
            ask = partial(upstream.refresh_quota, repository, reference)
            waited = await self._governor.admit(upstream.account, repository, purpose, ask, patient=not elsewhere)
        except TooManyRequests as error:
            if not elsewhere:
                raise
            kept = error
        try:
            manifest = await upstream.get_manifest(repository, reference, accept, purpose, kept=kept)
        except TooManyRequests as error:
            raise TooManyRequests(
                error.message, retry_after=self._governor.retry_after(upstream.account, error)
            ) from None
        now = self._clock.monotonic()
        for child in children(manifest.body):
            self._begun.put((repository.registry, child.digest), now)
        return manifest, waited

    def _completed(self, upstream: Registry, repository: Repository, reference: Reference, purpose: Purpose) -> Purpose:
        if not isinstance(reference, Digest):
            return purpose
        if upstream.account.ledger.has_fetched(str(repository), str(reference)):
            purpose = replace(purpose, why="gone")
        elif purpose.why == "digest":
            purpose = replace(purpose, why=self._expected.get((repository, reference)) or "digest")
        begun_at = self._begun.get((repository.registry, reference))
        if purpose.need == "cold" and begun_at is not None and self._clock.monotonic() - begun_at < BEGUN_SECONDS:
            purpose = replace(purpose, need="begun")
        return purpose
