"""A histogram of durations that takes many of one length at once, which prometheus_client's own does not."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_INFINITE: Final = float("inf")


class Durations(Collector):
    """Seconds, by labels. `buckets` are upper bounds, each higher than the one before."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], buckets: Sequence[float]) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self._bounds = [*buckets, _INFINITE]
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, labels: tuple[str, ...], seconds: float, count: int = 1) -> None:
        """So many took so long each."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * len(self._bounds)
            self._sums[labels] = 0.0
        counts[bisect_left(self._bounds, seconds)] += count
        self._sums[labels] += seconds * count

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, counts in self._counts.items():
            names = map(floatToGoString, self._bounds)
            family.add_metric(labels, list(zip(names, accumulate(counts), strict=True)), self._sums[labels])
        yield family
