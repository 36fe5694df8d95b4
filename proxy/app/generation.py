"""What one reading of the configuration gives: upstreams, who may pull, how long tags are fresh, what is logged.

A reload makes a new generation, which answers from then on; the old one ends what it has begun. What requests share
while upstream is asked belongs to no generation, so that a reload never asks twice: see `Shared`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import TextIO

from proxy.app.quotas import Quotas
from proxy.app.store import Store
from proxy.app.upstreams import Upstreams
from proxy.clock import Clock
from proxy.config import Config, UpstreamOptions
from proxy.metrics import LimitSample, Metrics
from proxy.policy.negatives import Negatives
from proxy.policy.quota.account import Account
from proxy.pull import Pull
from proxy.pull.admission import Doorkeeper
from proxy.pull.blobs import BlobPulls
from proxy.pull.catalog import Catalog
from proxy.pull.errands import Errands
from proxy.pull.explain import Explainer
from proxy.pull.listings import Listings
from proxy.pull.manifests import Manifests
from proxy.pull.tags import Tags
from proxy.server.access_log import AccessLog
from proxy.server.accounting import Accounting, add
from proxy.server.memo import Memo
from proxy.server.pump import Pump
from proxy.server.repeats import Repeats
from proxy.server.routes import Routes
from proxy.server.targets import Targets
from proxy.upstream.client import Upstream
from proxy.upstream.fallback import Registry


class Shared:
    """What every generation uses: one question upstream for one thing, whichever generation asks it first."""

    def __init__(self, store: Store, quotas: Quotas, metrics: Metrics, clock: Clock, log_stream: TextIO) -> None:
        self.store = store
        self.quotas = quotas
        self.metrics = metrics
        self.clock = clock
        self.log_stream = log_stream
        self.upstreams = Upstreams(quotas.books.account, metrics, clock)
        self.pump = Pump()
        self.repeats = Repeats(lambda batch: add(batch, metrics, quotas.traffic, store.usage))
        for figures in (metrics, quotas.traffic, store.usage):
            figures.settle_first(self.repeats.settle)
        self.negatives = Negatives()
        self.errands = Errands(quotas.governor, clock)
        self.manifests = Manifests(
            store.blobs, store.claims, store.removal, store.index, self.negatives, self.errands, clock
        )
        self.tags = Tags(self.manifests, store.index, self.negatives, quotas.governor, quotas.events, metrics, clock)
        self.blobs = BlobPulls(store.blobs, store.fills, store.leases, store.index, self.negatives, clock)

    async def settled(self) -> None:
        """Wait for what is being asked and fetched at this moment, not for what begins later."""
        await self.tags.settled()
        await self.manifests.settled()
        await self.blobs.settled()
        await self.store.fills.settled()

    async def aclose(self) -> None:
        """Stop what is being asked upstream, and count what was answered."""
        self.repeats.settle()
        await self.tags.aclose()
        await self.manifests.aclose()
        await self.blobs.aclose()


class Generation:
    """One configuration at work, from `begin` to `aclose`. Its `upstreams` are those of the pool in `shared`."""

    def __init__(self, config: Config, shared: Shared, upstreams: dict[str, Upstream]) -> None:
        self.config = config
        self.upstreams = upstreams
        self._shared = shared
        self._door = Doorkeeper(config.access.private, config.access.remember, shared.store.index, shared.clock)
        self._listings = Listings(shared.negatives, shared.clock)
        self._access_log = AccessLog(shared.log_stream, config.log.format) if config.log.access else None
        targets = Targets(self.upstreams, setup=config.server.setup, catalog=config.server.catalog)
        registries = {each.name: self._registry(each) for each in config.upstreams}
        self.pull = self._build_pull(registries)
        self.explainer = Explainer(
            registries, self._door, shared.manifests, shared.store.index, shared.quotas.governor, shared.clock
        )
        accounting = Accounting(shared.metrics, shared.quotas.traffic, self._access_log)
        index = shared.store.index
        memo = Memo(lambda: index.version, shared.repeats, self._access_log, shared.clock)
        self.routes = Routes(
            targets,
            self.pull,
            shared.pump,
            shared.metrics,
            accounting,
            memo if config.server.memo else None,
            config.server.max_requests,
        )
        shared.quotas.apply(config.quota)

    @classmethod
    async def begin(cls, config: Config, shared: Shared) -> Generation:
        """Ready to answer; upstreams are not asked yet: they may be down. Raises StartError."""
        async with AsyncExitStack() as undoing:
            upstreams = {}
            for options in config.upstreams:
                upstreams[options.name] = upstream = await shared.upstreams.take(options)
                undoing.push_async_callback(shared.upstreams.give_back, upstream)
            generation = cls(config, shared, upstreams)
            undoing.pop_all()
        return generation

    async def finish(self) -> None:
        """Stop what only this generation asks upstream, and write what is left to log. No request is being answered."""
        await self._door.aclose()
        await self._listings.aclose()
        if self._access_log is not None:
            await self._access_log.aclose()

    async def aclose(self) -> None:
        """Give the upstreams back. Nothing of this generation asks them any more."""
        for upstream in self.upstreams.values():
            await self._shared.upstreams.give_back(upstream)

    def log(self, lines: str) -> None:
        """Lines of the access log that were made elsewhere."""
        if self._access_log is not None:
            self._access_log.append(lines)

    def accounts(self) -> list[Account]:
        """What is known of the quota of each upstream."""
        return [self.upstreams[options.name].account for options in self.config.upstreams]

    def limits(self) -> Iterator[LimitSample]:
        """What upstreams said of their quotas."""
        for options in self.config.upstreams:
            quota = self.upstreams[options.name].limits.quota
            if quota is not None:
                account = options.username or "anonymous"
                yield LimitSample(options.name, account, quota.limit, quota.remaining, quota.window)

    def windows(self) -> dict[str, float]:
        """For each upstream, the default one first, the seconds for which its tags are fresh."""
        return {each.name: self._window(each) for each in self.config.upstreams}

    def _window(self, options: UpstreamOptions) -> float:
        return self.config.freshness.tags if options.tags is None else options.tags

    def _build_pull(self, registries: dict[str, Registry]) -> Pull:
        shared = self._shared
        catalog = Catalog(tuple(registries), shared.store.index, self._door)
        return Pull(
            registries,
            self._door,
            shared.tags,
            shared.manifests,
            shared.blobs,
            self._listings,
            catalog,
            shared.store.usage,
            shared.errands,
        )

    def _registry(self, options: UpstreamOptions) -> Registry:
        fallbacks = [self.upstreams[name] for name in options.fallbacks]
        return Registry(
            self.upstreams[options.name], fallbacks, self._window(options), self._shared.metrics, self._shared.clock
        )
