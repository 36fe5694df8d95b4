"""What Prometheus and people are told. One object owns one registry; nothing here is global.

Labels are bounded: kinds, methods, status codes, names of configured upstreams, reasons that our own code gives. What
upstream did not tell is absent, never 0: "unlimited" and "nothing left" must not look alike (PROTOCOL 1.3). The hot
path looks a bound child up in a dict and adds to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from proxy.metrics.durations import Durations
from proxy.metrics.quota import QuotaCollector, QuotaSample
from proxy.metrics.samples import (
    AliasCollector,
    CacheCollector,
    CacheSample,
    LimitCollector,
    LimitSample,
    RoomCollector,
    RoomSample,
    ScrubCollector,
    WorkerCollector,
    WorkerSample,
    totals,
)

__all__ = ["CacheSample", "LimitSample", "Metrics", "QuotaSample", "RoomSample", "WorkerSample"]

KINDS: Final = ("manifest", "blob")
INTEGRITY: Final = ("opened", "read", "scrub", "missing")
DELIVERIES: Final = ("delivered", "failed", "dropped")
DECISIONS: Final = ("pass", "saved", "stretched", "waited", "refused")
NOT_STORED: Final = ("too-large", "no-room", "disk", "locked")
SEGMENTED: Final = ("whole", "broken", "refused")
EVICTED: Final = ("room", "age", "leftover")
STALE: Final = ("slow", "limited", "denied", "unavailable", "missing", "quota-saved")
_METHODS: Final = frozenset({"GET", "HEAD"})
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

M = TypeVar("M", Counter, Gauge)


class Metrics:
    """Counts what happens, and writes it down for a scrape. `version` is that of the running program."""

    def __init__(self, *, aliases: bool = False, version: str) -> None:
        self.registry = _Registry()
        self._aliases = aliases
        self._settle: Callable[[], None] = lambda: None
        self._count_clients()
        self._count_upstreams()
        self._count_store()
        self._count_webhook()
        Info("pullthrough_build", "The running program.", registry=self.registry).info({"version": version})
        ProcessCollector(registry=self.registry)
        if aliases:
            self.registry.register(AliasCollector(self._alias_totals))

    def _count_clients(self) -> None:
        self._requests = self._counter("requests", "Requests of clients.", "kind", "method", "code")
        self._hits = self._counter("hits", "Requests answered from the cache.", "kind")
        self._misses = self._counter("misses", "Requests that nothing stored could answer.", "kind")
        self._stale = self._counter("stale", "Requests answered stale, and why.", "kind", "reason")
        self._collapsed = self._counter("collapsed", "Requests that shared a fetch that was running.", "kind")
        self._aborted = self._counter("aborted", "Responses that the client left before the end.", "kind")
        self._refused = self._counter(
            "connections_refused", "Connections of clients that were refused or ended, and why.", "reason"
        )
        self._served = self._counter("served_bytes", "Body bytes sent to clients.", "kind")
        self._first_byte = Durations(
            "pullthrough_time_to_first_byte_seconds",
            "From the request of a client to the headers of our response.",
            ("kind", "outcome"),
            _BUCKETS,
        )
        self.registry.register(self._first_byte)
        for kind in KINDS:  # A series that starts at 0 has a rate from its first event on.
            for counter in (self._hits, self._misses, self._collapsed, self._aborted, self._served):
                counter.of(kind)
        for reason in STALE:
            self._stale.of("manifest", reason)

    def _count_upstreams(self) -> None:
        self._fetched = self._counter("fetched_bytes", "Body bytes received from upstream.", "upstream", "kind")
        self._pulls = self._counter("counted_pulls", "Requests that upstream counts against the quota.", "upstream")
        self._revalidations = self._counter(
            "revalidations", "Tags that upstream was asked about.", "upstream", "result"
        )
        self._responses = self._counter(
            "upstream_responses", "Responses of upstream by class of status.", "upstream", "kind", "code"
        )
        self._retries = self._counter(
            "upstream_retries", "Requests that upstream was sent once more, since the first failed.", "upstream", "kind"
        )
        self._fallback_answers = self._counter(
            "fallback_answers", "Answers that a fallback gave in an upstream's stead.", "upstream", "source", "kind"
        )
        self._vanished = self._counter("vanished", "Tags we hold that upstream was found to have no more.", "upstream")
        self._decisions = self._counter(
            "governor_decisions", "What was decided about counted pulls.", "upstream", "decision"
        )
        self._rejected = self._switch("credentials_rejected", "Whether upstream refuses the configured credentials.")
        self._breakers = self._switch(
            "upstream_breaker_open",
            "Whether upstream is left alone, since it could not be asked several times in a row.",
        )

    def _count_store(self) -> None:
        self._fills_failed = self._counter("fills_failed", "Fills that were given up, and why.", "reason")
        self._evicted_blobs = self._counter("evicted_blobs", "Blobs that were evicted, and why.", "reason")
        self._evicted_bytes = self._counter("evicted_bytes", "Bytes of blobs that were evicted, and why.", "reason")
        self._not_stored = self._counter(
            "not_stored", "Blobs that were passed through to a client without being stored, and why.", "reason"
        )
        self._segmented = self._counter(
            "segmented_fills", "Fills that went over to several connections, and how that came out.", "outcome"
        )
        for outcome in SEGMENTED:
            self._segmented.of(outcome)
        self._integrity_failures = self._counter(
            "integrity_failures", "Stored blobs that were bad or missing, and how that came out.", "found"
        )
        self._scrub_files = self._counter("scrub_files", "Stored blobs that were read and hashed again.")
        self._scrub_bytes = self._counter("scrub_bytes", "Bytes of stored blobs that were read and hashed again.")
        for found in INTEGRITY:
            self._integrity_failures.of(found)
        for reason in NOT_STORED:
            self._not_stored.of(reason)
        for reason in EVICTED:
            self._evicted_blobs.of(reason)
            self._evicted_bytes.of(reason)

    def expect(self, upstream: str) -> None:
        """This upstream is in use: what is counted of it starts at 0, so that its first event has a rate.

        How an earlier one of this name was does not count any more.
        """
        self.forget(upstream)
        for counter in (self._pulls, self._vanished):
            counter.of(upstream)
        for kind in KINDS:
            self._fetched.of(upstream, kind)
        self._retries.of(upstream, "manifest")
        for decision in DECISIONS:
            self._decisions.of(upstream, decision)

    def forget(self, upstream: str) -> None:
        """This upstream is not in use any more: nobody shall be alarmed at how it was. What was counted stays."""
        self._rejected.drop(upstream)
        self._breakers.drop(upstream)

    def _count_webhook(self) -> None:
        self._deliveries = self._counter(
            "webhook_deliveries", "Alerts that a webhook was to be told of, and what became of that.", "outcome"
        )
        for outcome in DELIVERIES:
            self._deliveries.of(outcome)

    def request(self, kind: str, method: str, status: int, count: int = 1) -> None:
        """So many requests of clients were answered; `kind` is manifest, blob, listing, ping or other."""
        self._requests.of(kind, method if method in _METHODS else "other", str(status)).inc(count)

    def hit(self, kind: str, count: int = 1) -> None:
        """So many were answered without asking upstream for a body."""
        self._hits.of(kind).inc(count)

    def miss(self, kind: str) -> None:
        """Nothing stored could answer."""
        self._misses.of(kind).inc()

    def stale(self, kind: str, reason: str) -> None:
        """Answered with something upstream did not confirm."""
        self._stale.of(kind, reason).inc()

    def collapsed(self, kind: str) -> None:
        """Joined a fetch that was running."""
        self._collapsed.of(kind).inc()

    def aborted(self, kind: str) -> None:
        """The client left before the end of the response."""
        self._aborted.of(kind).inc()

    def connection_refused(self, reason: str, count: int = 1) -> None:
        """So many connections of clients were refused, or ended before their time."""
        self._refused.of(reason).inc(count)

    def served(self, kind: str, n: int) -> None:
        """So many body bytes went to a client."""
        self._served.of(kind).inc(n)

    def first_byte(self, kind: str, outcome: str, seconds: float, count: int = 1) -> None:
        """The headers of so many responses left after so long; `outcome` is hit, miss, stale, collapsed or error."""
        self._first_byte.observe((kind, outcome), seconds, count)

    def fetched(self, upstream: str, kind: str, n: int) -> None:
        """So many body bytes came from upstream."""
        self._fetched.of(upstream, kind).inc(n)

    def upstream_response(self, upstream: str, kind: str, status: int | None) -> None:
        """Upstream answered, or (None) could not be asked."""
        code = "error" if status is None else f"{status // 100}xx"
        self._responses.of(upstream, kind, code).inc()

    def upstream_retried(self, upstream: str, kind: str) -> None:
        """A request is sent once more, since the first one failed in a way that may pass."""
        self._retries.of(upstream, kind).inc()

    def fallback_answer(self, upstream: str, source: str, kind: str) -> None:
        """`source` answered since `upstream` could not be asked; `kind` is manifest, blob or other."""
        self._fallback_answers.of(upstream, source, kind).inc()

    def counted_pull(self, upstream: str) -> None:
        """A request that upstream counts against the quota was sent."""
        self._pulls.of(upstream).inc()

    def revalidation(self, upstream: str, result: str) -> None:
        """Upstream was asked about a tag; `result` is unchanged, changed, missing or failed."""
        self._revalidations.of(upstream, result).inc()

    def vanished(self, upstream: str) -> None:
        """Upstream denies a tag that we hold."""
        self._vanished.of(upstream).inc()

    def governor_decision(self, upstream: str, decision: str) -> None:
        """The governor decided about a counted pull: pass, saved, stretched, waited or refused."""
        self._decisions.of(upstream, decision).inc()

    def fill_failed(self, reason: str) -> None:
        """A fill was given up."""
        self._fills_failed.of(reason).inc()

    def evicted(self, reason: str, count: int, size: int) -> None:
        """Blobs went, and their bytes: for `room`, for their `age`, or as a `leftover` of unfinished fills."""
        if count:
            self._evicted_blobs.of(reason).inc(count)
            self._evicted_bytes.of(reason).inc(size)

    def not_stored(self, reason: str) -> None:
        """A blob is passed through to one client; `reason` is too-large, no-room, disk or locked."""
        self._not_stored.of(reason).inc()

    def segmented(self, outcome: str) -> None:
        """A fill went over to several connections: they brought the whole blob, broke, or upstream refused them."""
        self._segmented.of(outcome).inc()

    def credentials_rejected(self, upstream: str, rejected: bool) -> None:
        """Whether upstream refuses the configured credentials now."""
        self._rejected.of(upstream).set(rejected)

    def breaker_open(self, upstream: str, is_open: bool) -> None:
        """Whether upstream is left alone, since it could not be asked several times in a row."""
        self._breakers.of(upstream).set(is_open)

    def integrity_failed(self, found: str, count: int = 1) -> None:
        """Stored blobs were bad or missing; `found` is one of INTEGRITY."""
        self._integrity_failures.of(found).inc(count)

    def scrubbed(self, files: int, size: int) -> None:
        """So many stored blobs, and bytes of them, were read and hashed again."""
        self._scrub_files.metric.inc(files)
        self._scrub_bytes.metric.inc(size)

    def webhook_told(self, outcome: str, alerts: int) -> None:
        """So many alerts were delivered, were given up (failed), or had no room among those that stand (dropped)."""
        self._deliveries.of(outcome).inc(alerts)

    def settle_first(self, settle: Callable[[], None]) -> None:
        """Before these figures are read, `settle` brings what was counted elsewhere."""
        self._settle = settle

    def watch_scrub(self, read: Callable[[], float | None]) -> None:
        """Ask at every scrape when a scrub last came to its end (epoch), if one ever did."""
        self.registry.register(ScrubCollector(read))

    def watch_fills(self, count: Callable[[], int]) -> None:
        """Ask for the number of running fills at every scrape."""
        Gauge("pullthrough_fills_running", "Fills that run now.", registry=self.registry).set_function(count)

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Ask for the number of connections of clients at every scrape."""
        Gauge("pullthrough_connections", "Connections of clients.", registry=self.registry).set_function(count)

    def watch_workers(self, read: Callable[[], WorkerSample]) -> None:
        """Ask for the processes that serve clients at every scrape."""
        self.registry.register(WorkerCollector(read))

    def watch_limits(self, read: Callable[[], Iterable[LimitSample]]) -> None:
        """Ask for what upstreams said of their pull quota at every scrape."""
        self.registry.register(LimitCollector(read, aliases=self._aliases))

    def watch_quota(self, read: Callable[[], Iterable[QuotaSample]]) -> None:
        """Ask for what is known of quotas, and expected of them, at every scrape."""
        self.registry.register(QuotaCollector(read))

    def fetched_bytes(self) -> dict[str, int]:
        """Body bytes received, by upstream."""
        return totals(self._fetched.metric, "upstream")

    def watch_cache(self, read: Callable[[], CacheSample]) -> None:
        """Ask for the size of the cache at every scrape."""
        self.registry.register(CacheCollector(read))

    def watch_room(self, read: Callable[[], RoomSample]) -> None:
        """Ask for the room on disk at every scrape."""
        self.registry.register(RoomCollector(read))

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The metrics and their content type, in the format that this Accept value prefers."""
        self._settle()
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type

    def snapshot(self) -> dict[str, dict[str, int]]:
        """The totals for the status document: by kind, pulls by upstream."""
        self._settle()
        return {
            "hits": totals(self._hits.metric, "kind"),
            "misses": totals(self._misses.metric, "kind"),
            "stale": totals(self._stale.metric, "kind"),
            "collapsed": totals(self._collapsed.metric, "kind"),
            "served_bytes": totals(self._served.metric, "kind"),
            "fetched_bytes": totals(self._fetched.metric, "kind"),
            "counted_pulls": totals(self._pulls.metric, "upstream"),
        }

    def alerting(self) -> dict[str, dict[str, int]]:
        """The totals that alerts look at: by kind, found, reason, upstream."""
        self._settle()
        return {
            "requests": totals(self._requests.metric, "kind"),
            "hits": totals(self._hits.metric, "kind"),
            "misses": totals(self._misses.metric, "kind"),
            "integrity_failures": totals(self._integrity_failures.metric, "found"),
            "not_stored": totals(self._not_stored.metric, "reason"),
            "vanished": totals(self._vanished.metric, "upstream"),
        }

    def _counter(self, name: str, documentation: str, *labels: str) -> _Bound[Counter]:
        return _Bound(Counter(f"pullthrough_{name}", documentation, labels, registry=self.registry))

    def _switch(self, name: str, documentation: str) -> _Bound[Gauge]:
        """0 or 1 for each upstream."""
        return _Bound(Gauge(f"pullthrough_{name}", documentation, ("upstream",), registry=self.registry))

    def _alias_totals(self) -> dict[str, dict[str, int]]:
        return {"requests": totals(self._requests.metric, "kind"), **self.snapshot()}


class _Bound(Generic[M]):
    """A metric, and its children by their label values."""

    __slots__ = ("_children", "metric")

    def __init__(self, metric: M) -> None:
        self.metric: M = metric
        self._children: dict[tuple[str, ...], M] = {}

    def of(self, *labels: str) -> M:
        """The child with these label values."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self.metric.labels(*labels)
        return child

    def drop(self, *labels: str) -> None:
        """There is no child with these label values any more, if there was one."""
        if self._children.pop(labels, None) is not None:
            self.metric.remove(*labels)


class _Registry(CollectorRegistry):
    """Without the `_created` series, which double the number of series and which nobody reads."""

    def collect(self) -> Iterator[Metric]:
        for family in super().collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
