"""Numbers and histograms that are cheap to count with, and their form for a scrape.

The event loop alone changes them and a scrape only copies, so they need none of the locks of
prometheus_client's own classes; what metrics cost is measured by benchmarks/metrics_overhead.py.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.utils import INF, floatToGoString

from rootserve.server.observers.metrics_catalog import Kind, Metric


class Number:
    """A counter or a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1.0) -> None:
        """Count."""
        self.value += amount


class Distribution:
    """A histogram."""

    __slots__ = ("_bounds", "_counts", "_exemplars", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float, trace_id: str = "") -> None:
        """Count ``value``; a trace becomes the exemplar of its bucket."""
        position = bisect_left(self._bounds, value)
        self._counts[position] += 1
        self._sum += value
        if trace_id:
            self._exemplars[position] = Exemplar({"trace_id": trace_id}, value, time.time())

    def add_to(
        self, family: HistogramMetricFamily, labels: Sequence[str], names: Sequence[str]
    ) -> None:
        """Add what was counted up to now to ``family``, in cumulative buckets called ``names``."""
        counts, total = self._counts.copy(), self._sum
        buckets: list[tuple[str, float, Exemplar | None]] = []
        cumulative = 0
        for position, name in enumerate(names):
            cumulative += counts[position]
            buckets.append((name, cumulative, self._exemplars.get(position)))
        family.add_metric(labels, buckets, total)  # type: ignore[arg-type]


class Numbers:
    """A counter or gauge of the catalogue, with a number for each tuple of label values."""

    def __init__(self, metric: Metric) -> None:
        assert metric.kind in {Kind.COUNTER, Kind.GAUGE}, metric.name
        self._metric = metric
        self._children: dict[tuple[str, ...], Number] = {}

    def of(self, *labels: str) -> Number:
        """That with these label values; from now on it is shown."""
        found = self._children.get(labels)
        if found is None:
            found = self._children[labels] = Number()
        return found

    def family(self) -> Family:
        """All of them as they are now."""
        metric = self._metric
        kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
        family = kind(metric.name, metric.help, labels=metric.labels)
        for labels, number in tuple(self._children.items()):
            family.add_metric(labels, number.value)
        return family


class Distributions:
    """A histogram of the catalogue, with a distribution for each tuple of label values."""

    def __init__(self, metric: Metric) -> None:
        assert metric.kind is Kind.HISTOGRAM, metric.name
        self._metric = metric
        self._names = [_bucket_name(bound) for bound in (*metric.buckets, INF)]
        self._children: dict[tuple[str, ...], Distribution] = {}

    def of(self, *labels: str) -> Distribution:
        """That with these label values; from now on it is shown."""
        found = self._children.get(labels)
        if found is None:
            found = self._children[labels] = Distribution(self._metric.buckets)
        return found

    def family(self) -> Family:
        """All of them as they are now."""
        metric = self._metric
        family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, distribution in tuple(self._children.items()):
            distribution.add_to(family, labels, self._names)
        return family


def _bucket_name(bound: float) -> str:
    name: str = floatToGoString(bound)  # type: ignore[no-untyped-call]
    return name
