"""What is known of pull quotas and expected of them, read at a scrape. What is unknown has no sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class QuotaSample:
    """One upstream. `level` from 0, plenty, to 4, exhausted; `exhausted_seconds` from now, 0 when it is.

    What was saved is what clients got and upstream was not asked for, since the start. `refusals` and `closed_seconds`
    are by the name of the limit: pulls or requests.
    """

    upstream: str
    level: int
    waiting: int
    unexplained: int
    bypass_suspected: bool
    observed_seconds: float | None
    exhausted_seconds: float | None
    saved_pulls: int
    saved_bytes: int
    outages: int
    refusals: Mapping[str, int]
    closed_seconds: Mapping[str, float]


Value = Callable[[QuotaSample], float | None]

_GAUGES: Final[tuple[tuple[str, str, Value], ...]] = (
    (
        "governor_level",
        "How careful the governor is: 0 plenty, 1 careful, 2 tight, 3 reserve, 4 exhausted.",
        lambda each: each.level,
    ),
    ("quota_waiting", "Pulls of clients that wait for quota.", lambda each: each.waiting),
    (
        "quota_unexplained_pulls",
        "Pulls of this window that upstream counted and this cache did not make.",
        lambda each: each.unexplained,
    ),
    (
        "quota_bypass_suspected",
        "Whether somebody else seems to use this account or address.",
        lambda each: each.bypass_suspected,
    ),
    ("quota_observed_seconds", "How long ago upstream last told its quota.", lambda each: each.observed_seconds),
    (
        "quota_exhausted_in_seconds",
        "When the quota is used up at the present rate; absent if it is not, or too little is known.",
        lambda each: each.exhausted_seconds,
    ),
)
_COUNTERS: Final[tuple[tuple[str, str, Value], ...]] = (
    ("saved_pulls", "Manifests that clients got, less the counted pulls they cost.", lambda each: each.saved_pulls),
    ("saved_bytes", "Body bytes that clients got, less those that upstream sent.", lambda each: each.saved_bytes),
    (
        "outages_bridged",
        "Times of trouble in which clients were answered from the cache.",
        lambda each: each.outages,
    ),
)


class QuotaCollector(Collector):
    """The quotas of upstreams."""

    def __init__(self, read: Callable[[], Iterable[QuotaSample]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        samples = list(self._read())
        for kind, families in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
            for name, documentation, value in families:
                family = kind(f"pullthrough_{name}", documentation, labels=["upstream"])
                yield _filled(family, ((each.upstream, value(each)) for each in samples))
        yield _by_limit(
            CounterMetricFamily(
                "pullthrough_limited",
                "Answers of upstream that a limit is reached (429).",
                labels=["upstream", "limit"],
            ),
            ((each.upstream, each.refusals) for each in samples),
        )
        yield _by_limit(
            GaugeMetricFamily(
                "pullthrough_limit_closed_seconds",
                "For how long nothing is asked that this limit is for; 0 while it may be.",
                labels=["upstream", "limit"],
            ),
            ((each.upstream, each.closed_seconds) for each in samples),
        )


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Iterable[tuple[str, float | None]]) -> Metric:
    for upstream, value in values:
        if value is not None:
            family.add_metric([upstream], float(value))
    return family


def _by_limit(
    family: GaugeMetricFamily | CounterMetricFamily, samples: Iterable[tuple[str, Mapping[str, float]]]
) -> Metric:
    for upstream, values in samples:
        for limit, value in values.items():
            family.add_metric([upstream, limit], value)
    return family
