"""What the tests of `proxy.upstream` share: an upstream pointed at a fake hub, a clock to turn, metrics to read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from proxy.config import Secret, UpstreamOptions
from proxy.metrics import Metrics
from proxy.oci.names import Digest, Repository, Tag
from proxy.upstream.client import Upstream
from tests.fake_hub import FakeHub

REPOSITORY = Repository.parse("acme/app")
LATEST = Tag.parse("latest")
PAT = "dckr_pat_test"


class TurnedClock:
    """Stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now + 700_000_000.0

    def monotonic(self) -> float:
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += seconds


class RiggedUpstream(Upstream):
    """An upstream whose clock and metrics a test can get at."""

    def __init__(self, options: UpstreamOptions) -> None:
        self.clock = TurnedClock()
        self.metrics = Metrics(version="test")
        super().__init__(options, self.metrics, self.clock)

    def sample(self, name: str, **labels: str) -> float | None:
        """The value of one time series of this upstream, None if there is none."""
        wanted = (f"pullthrough_{name}", {"upstream": self.name, **labels})
        collected = self.metrics.registry.restricted_registry([wanted[0]]).collect()
        samples = [sample for metric in collected for sample in metric.samples]
        return next((float(each.value) for each in samples if (each.name, each.labels) == wanted), None)


@asynccontextmanager
async def started(url: str, **options: Any) -> AsyncIterator[RiggedUpstream]:
    """A running upstream at this URL, by default called docker.io."""
    upstream = RiggedUpstream(UpstreamOptions(**{"name": "docker.io", "url": url, **options}))
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.aclose()


@asynccontextmanager
async def asking(hub: FakeHub, **options: Any) -> AsyncIterator[RiggedUpstream]:
    """A running upstream that asks this hub anonymously."""
    async with started(hub.url, **options) as upstream:
        yield upstream


@asynccontextmanager
async def asking_as_account(hub: FakeHub, password: str = PAT, **options: Any) -> AsyncIterator[RiggedUpstream]:
    """A running upstream that asks this hub with the PAT, or with another password."""
    async with started(hub.url, username=hub.username, password=Secret(password), **options) as upstream:
        yield upstream


async def fetched(upstream: Upstream, digest: str, offset: int = 0) -> bytes:
    """All bytes of a blob from `offset` on."""
    content = bytearray()
    async with upstream.open_blob(REPOSITORY, Digest.parse(digest), offset) as body:
        while data := await body.read():
            content += data
    return bytes(content)
