"""Where a tag points: answered while fresh, then asked again with a HEAD, which Docker Hub does not count.

A client waits for that HEAD only as long as it must (see `patience`); the question goes on without it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from proxy.clock import Clock
from proxy.collapse import Collapser
from proxy.metrics import Metrics
from proxy.oci.errors import Denied, ManifestUnknown, NameUnknown, RegistryError
from proxy.oci.manifests import ACCEPT_ALL, Descriptor, accept_key, accepts
from proxy.oci.names import Repository, Tag
from proxy.policy import freshness
from proxy.policy.freshness import Freshness, StoredTag
from proxy.policy.negatives import Negatives
from proxy.policy.quota.purpose import UNKNOWN_PURPOSE
from proxy.pull.manifests import Manifests
from proxy.pull.outcome import Outcome, reason_for
from proxy.pull.patience import Patience
from proxy.quota.events import Events
from proxy.quota.governor import Governor
from proxy.store.index import Index
from proxy.upstream.client import DigestMissing
from proxy.upstream.fallback import Registry, Said

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a tag points to, and how we know."""

    target: Descriptor
    previous: Descriptor | None
    """What the tag pointed to before; it can still be answered, stale, if `target` cannot be had."""
    outcome: Outcome


class Tags:
    """Resolves tags of any repository."""

    def __init__(
        self,
        manifests: Manifests,
        index: Index,
        negatives: Negatives,
        governor: Governor,
        events: Events,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._governor = governor
        self._events = events
        self._manifests = manifests
        self._index = index
        self._negatives = negatives
        self._metrics = metrics
        self._clock = clock
        self._asking: Collapser[tuple[Repository, Tag, str], StoredTag] = Collapser()

    async def settled(self) -> None:
        """Wait for what is being asked now."""
        await self._asking.settled()

    async def aclose(self) -> None:
        """Stop what is being asked."""
        await self._asking.aclose()

    async def resolve(
        self, upstream: Registry, repository: Repository, tag: Tag, accept: Sequence[str], patience: Patience
    ) -> Resolution:
        """What the tag points to for a client that accepts these types. Raises RegistryError.

        Upstream is asked for all types, so that a tag has one answer whoever asks. A client that does not take the
        type it points to gets an answer of its own, asked for with its own Accept (PROTOCOL 6).
        """
        resolution = await self._resolve(upstream, repository, tag, "", patience)
        if accepts(accept, resolution.target.media_type):
            return resolution
        return await self._resolve(upstream, repository, tag, accept_key(accept), patience)

    async def _resolve(
        self, upstream: Registry, repository: Repository, tag: Tag, accept: str, patience: Patience
    ) -> Resolution:
        now = self._clock.time()
        stored = self._index.tag(repository, tag, accept)
        window = self._governor.window(upstream.account, repository, upstream.window)
        state = freshness.decide(stored, now, window)
        if stored is not None and state is Freshness.FRESH:
            stretched = window > upstream.window and now - stored.checked_at >= upstream.window
            if stretched:
                self._governor.stretched(upstream.account)
            age = freshness.age(stored, now)
            until = stored.checked_at + min(window, age + 1)
            outcome = Outcome("hit", age=age, fallback=stored.source, stretched=stretched, until=until)
            return Resolution(stored.target, stored.previous, outcome)
        held = await self._held(repository, stored) if stored is not None else None
        collapsed = (repository, tag, accept) in self._asking
        key = _negative_key(repository, tag, accept)
        question = self._ask(upstream, repository, tag, accept)
        try:
            asked = await patience.wait(question, holding=held is not None or self._negatives.last(key) is not None)
        except RegistryError as error:
            if held is None or stored is None:
                raise self._negatives.instead_of(error, key) from None
            return Resolution(held, None, Outcome.stale(reason_for(error), freshness.age(stored, now)))
        revalidated = stored is not None and asked.target.digest == stored.target.digest
        kind: Literal["hit", "miss"] = "hit" if revalidated else "miss"
        outcome = Outcome(kind, revalidated=revalidated, collapsed=collapsed, fallback=asked.source)
        return Resolution(asked.target, asked.previous, outcome)

    async def _held(self, repository: Repository, stored: StoredTag) -> Descriptor | None:
        """The manifest of this tag by which most can be pulled from what we hold."""
        return await self._manifests.better(repository, stored.target, stored.previous)

    async def _ask(self, upstream: Registry, repository: Repository, tag: Tag, accept: str) -> StoredTag:
        key = (repository, tag, accept)
        return await self._asking.run(key, lambda: self._revalidate(upstream, repository, tag, accept))

    async def _revalidate(self, upstream: Registry, repository: Repository, tag: Tag, accept: str) -> StoredTag:
        stored = self._index.tag(repository, tag, accept)
        key = _negative_key(repository, tag, accept)
        self._negatives.check(key, self._clock.monotonic())
        try:
            said = await self._target(upstream, repository, tag, accept or ACCEPT_ALL)
        except RegistryError as error:
            self._negatives.remember(key, error, self._clock.monotonic())
            missing = isinstance(error, ManifestUnknown | NameUnknown | Denied)
            if missing and not accept and stored is not None and await self._held(repository, stored) is not None:
                self._vanished(upstream, repository, tag, error)
            self._metrics.revalidation(upstream.name, "missing" if missing else "failed")
            raise
        self._negatives.forget(key)
        self._index.drop_vanished(repository, tag)
        target = self._manifests.confirm(repository, said.what)
        changed = stored is None or stored.target.digest != target.digest
        self._metrics.revalidation(upstream.name, "changed" if changed else "unchanged")
        known = StoredTag(target, None, self._clock.time(), said.source)
        if stored is not None:
            target_held = await self._manifests.stored(repository, stored.target.digest) is not None
            known = stored.moved(known, target_held=target_held)
        self._index.put_tag(repository, tag, accept, known)
        return known

    def _vanished(self, upstream: Registry, repository: Repository, tag: Tag, error: RegistryError) -> None:
        """What we hold goes on being served; people should know that upstream has it no more."""
        if self._index.put_vanished(repository, tag, error.code):
            self._metrics.vanished(upstream.name)
            text = f"{repository}:{tag} is not to be had upstream any more ({error.code}): it is served stale"
            log.warning("%s", text)
            self._events.note(upstream.name, "vanished", text)

    async def _target(self, upstream: Registry, repository: Repository, tag: Tag, accept: str) -> Said[Descriptor]:
        try:
            return await upstream.resolve_tag(repository, tag, accept)
        except DigestMissing:  # An old registry: only the bytes tell.
            manifest, _ = await self._manifests.fetch(upstream, repository, tag, UNKNOWN_PURPOSE, accept)
            return Said(manifest.descriptor, None)


def _negative_key(repository: Repository, tag: Tag, accept: str) -> tuple[object, ...]:
    return ("tag", repository, tag, accept)
