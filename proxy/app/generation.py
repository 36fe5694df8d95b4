"""What one reading of the configuration gives: upstreams, who may pull, how long tags are fresh, what is logged.

A reload makes a new generation, which answers from then on; the old one ends what it has begun. What requests share
while upstream is asked belongs to no generation, so that a reload never asks twice: see `Shared`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import TextIO

from proxy.app.errors import StartError
from proxy.app.store import Store
from proxy.clock import Clock
from proxy.config import Config, UpstreamOptions
from proxy.metrics import LimitSample, Metrics
from proxy.policy.negatives import Negatives
from proxy.pull import Pull
from proxy.pull.admission import Doorkeeper
from proxy.pull.blobs import BlobPulls
from proxy.pull.catalog import Catalog
from proxy.pull.listings import Listings
from proxy.pull.manifests import Manifests
from proxy.pull.tags import Tags
from proxy.server.access_log import AccessLog
from proxy.server.pump import Pump
from proxy.server.routes import Routes
from proxy.server.targets import Targets
from proxy.upstream.client import Upstream
from proxy.upstream.fallback import Registry


class Shared:
    """What every generation uses: one question upstream for one thing, whichever generation asks it first."""

    def __init__(self, store: Store, metrics: Metrics, clock: Clock, log_stream: TextIO) -> None:
        self.store = store
        self.metrics = metrics
        self.clock = clock
        self.log_stream = log_stream
        self.pump = Pump()
        self.negatives = Negatives()
        self.manifests = Manifests(store.blobs, store.index, self.negatives, clock)
        self.tags = Tags(self.manifests, store.index, self.negatives, metrics, clock)
        self.blobs = BlobPulls(store.blobs, store.fills, store.index, self.negatives, clock)

    async def aclose(self) -> None:
        """Stop what is being asked upstream."""
        await self.tags.aclose()
        await self.manifests.aclose()
        await self.blobs.aclose()


class Generation:
    """One configuration at work: `start`, then `aclose`."""

    def __init__(self, config: Config, shared: Shared) -> None:
        self.config = config
        self._shared = shared
        self.upstreams = {each.name: Upstream(each, shared.metrics, shared.clock) for each in config.upstreams}
        self.access_log = AccessLog(shared.log_stream, config.log.format) if config.log.access else None
        self.pull = self._build_pull()
        targets = Targets(self.upstreams, setup=config.server.setup, catalog=config.server.catalog)
        self.routes = Routes(
            targets, self.pull, shared.pump, shared.metrics, self.access_log, config.server.max_requests
        )
        self._closing = AsyncExitStack()

    async def start(self) -> None:
        """Ready to ask; upstreams are not asked yet: they may be down. Raises StartError; `aclose` then, too."""
        if self.access_log is not None:
            self._closing.push_async_callback(self.access_log.aclose)
        for upstream in self.upstreams.values():
            await _start_upstream(upstream)
            self._closing.push_async_callback(upstream.aclose)

    async def finish(self) -> None:
        """Stop what only this generation asks upstream."""
        await self.pull.aclose()

    async def aclose(self) -> None:
        """Close the connections to upstreams, and write what is left to log."""
        await self._closing.aclose()

    def limits(self) -> Iterator[LimitSample]:
        """What upstreams said of their quotas."""
        for options in self.config.upstreams:
            quota = self.upstreams[options.name].limits.quota
            if quota is not None:
                account = options.username or "anonymous"
                yield LimitSample(options.name, account, quota.limit, quota.remaining, quota.window)

    def _build_pull(self) -> Pull:
        config, shared = self.config, self._shared
        door = Doorkeeper(config.access.private, config.access.remember, shared.store.index, shared.clock)
        listings = Listings(shared.negatives, shared.clock)
        registries = {each.name: self._registry(each) for each in config.upstreams}
        catalog = Catalog(tuple(registries), shared.store.index, door)
        return Pull(
            registries, door, shared.tags, shared.manifests, shared.blobs, listings, catalog, shared.store.usage
        )

    def _registry(self, options: UpstreamOptions) -> Registry:
        fallbacks = [self.upstreams[name] for name in options.fallbacks]
        window = self.config.freshness.tags if options.tags is None else options.tags
        return Registry(self.upstreams[options.name], fallbacks, window, self._shared.metrics, self._shared.clock)


async def _start_upstream(upstream: Upstream) -> None:
    try:
        await upstream.start()
    except OSError as error:
        raise StartError(f"cannot use the certificates (ca) of upstream {upstream.name}: {error}") from error
