"""Metrics that are read at a scrape from what others keep: quotas, the size of the cache, aliases of our counters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_ALIASED: Final = {
    "requests": "requests",
    "hits": "hits",
    "misses": "misses",
    "pulled_bytes": "fetched_bytes",
    "pushed_bytes": "served_bytes",
}
"""The names of `registry:2` in proxy mode, and ours."""


@dataclass(frozen=True, slots=True)
class LimitSample:
    """What an upstream last said of its pull quota.

    `account` is the configured username or `anonymous`, never the address that upstream counts by.
    """

    upstream: str
    account: str
    limit: int | None
    remaining: int | None
    window: int | None


@dataclass(frozen=True, slots=True)
class CacheSample:
    """How much the cache holds, on disk and in memory."""

    blobs: int
    bytes: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class RoomSample:
    """Bytes: what the cache may take (None: no limit), what is free on its disk, what unfinished fills have left."""

    max_bytes: int | None
    free_bytes: int
    leftover_bytes: int


@dataclass(frozen=True, slots=True)
class WorkerSample:
    """The processes that serve clients, and how many such have died since the start."""

    running: int
    deaths: int


class WorkerCollector(Collector):
    """The processes that serve clients."""

    def __init__(self, read: Callable[[], WorkerSample]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        sample = self._read()
        yield GaugeMetricFamily("pullthrough_workers", "Processes that serve clients.", sample.running)
        deaths = "Processes that served clients and have died."
        yield CounterMetricFamily("pullthrough_worker_deaths", deaths, sample.deaths)


class RoomCollector(Collector):
    """The room on disk. No limit is no sample."""

    def __init__(self, read: Callable[[], RoomSample]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        sample = self._read()
        if sample.max_bytes is not None:
            yield GaugeMetricFamily("pullthrough_cache_max_bytes", "What blobs may take on disk.", sample.max_bytes)
        yield GaugeMetricFamily("pullthrough_cache_free_bytes", "What is free on that disk.", sample.free_bytes)
        yield GaugeMetricFamily(
            "pullthrough_cache_partial_bytes", "What unfinished fetches have left.", sample.leftover_bytes
        )


class LimitCollector(Collector):
    """The quotas of upstreams. What is unknown has no sample."""

    def __init__(self, read: Callable[[], Iterable[LimitSample]], *, aliases: bool) -> None:
        self._read = read
        self._aliases = aliases

    def collect(self) -> Iterator[Metric]:
        samples = list(self._read())
        limits = [(each, each.limit) for each in samples]
        remaining = [(each, each.remaining) for each in samples]
        windows = [(each, each.window) for each in samples]
        yield _gauge("pullthrough_ratelimit_limit", "Pulls that upstream allows in a window.", limits)
        yield _gauge("pullthrough_ratelimit_remaining", "Pulls that upstream last said are left.", remaining)
        yield _gauge("pullthrough_ratelimit_window_seconds", "The window of the limit.", windows)
        if self._aliases:
            yield _gauge("dockerhub_limit_max_requests_total", "Alias of pullthrough_ratelimit_limit.", limits)
            yield _gauge(
                "dockerhub_limit_remaining_requests_total", "Alias of pullthrough_ratelimit_remaining.", remaining
            )


class CacheCollector(Collector):
    """The size of the cache."""

    def __init__(self, read: Callable[[], CacheSample]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        sample = self._read()
        yield GaugeMetricFamily("pullthrough_cache_blobs", "Blobs and manifests on disk.", sample.blobs)
        yield GaugeMetricFamily("pullthrough_cache_bytes", "Bytes of them.", sample.bytes)
        yield GaugeMetricFamily("pullthrough_cache_memory_bytes", "Bytes held in memory too.", sample.memory_bytes)


class ScrubCollector(Collector):
    """When a scrub last came to its end; nothing before one did."""

    def __init__(self, read: Callable[[], float | None]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        finished_at = self._read()
        if finished_at is not None:
            name = "pullthrough_scrub_last_finished_timestamp_seconds"
            yield GaugeMetricFamily(name, "When all that is stored had last been read again.", finished_at)


class AliasCollector(Collector):
    """Our counters under the names of `registry:2` in proxy mode."""

    def __init__(self, read: Callable[[], dict[str, dict[str, int]]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        counted = self._read()
        for name, ours in _ALIASED.items():
            family = CounterMetricFamily(
                f"registry_proxy_{name}", f"Alias of pullthrough_{ours}_total.", labels=["type"]
            )
            for kind in ("blob", "manifest"):
                family.add_metric([kind], counted[ours].get(kind, 0))
            yield family


def totals(counter: Counter, label: str) -> dict[str, int]:
    """The sums of a counter by one of its labels."""
    sums: dict[str, int] = {}
    for family in counter.collect():
        for sample in family.samples:
            if sample.name.endswith("_total"):
                sums[sample.labels[label]] = sums.get(sample.labels[label], 0) + int(sample.value)
    return sums


def _gauge(name: str, documentation: str, samples: Iterable[tuple[LimitSample, int | None]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=["upstream", "account"])
    for sample, value in samples:
        if value is not None:
            family.add_metric([sample.upstream, sample.account], value)
    return family
