"""Times in a high-dynamic-range histogram: constant memory, three significant digits."""

import math
from dataclasses import asdict, dataclass

import numpy as np
from hdrh.histogram import HdrHistogram

_LONGEST_US = 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """A distribution of times in seconds; None where no recorded time tells the figure."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    p999: float | None = None
    min: float | None = None
    mean: float | None = None
    max: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """The figures by name, ready for `json.dumps`."""
        return asdict(self)


class LatencyHistogram:
    """Times from 1 us to a day, with a resolution of 1 us or 0.1 %, whichever is coarser."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, _LONGEST_US, 3)
        # The library walks its 30,000 counters in Python to find a percentile; through numpy
        # that takes microseconds, so that live figures do not disturb what is measured.
        self._counts = np.ctypeslib.as_array(self._histogram.counts)
        self._sum_s = 0.0
        self._min_s = math.inf
        self._max_s = 0.0

    @property
    def count(self) -> int:
        """How many times were recorded."""
        return int(self._histogram.total_count)

    def record(self, seconds: float) -> None:
        """Record one time."""
        self._histogram.record_value(min(max(1, round(seconds * 1e6)), _LONGEST_US))
        self._sum_s += seconds
        self._min_s = min(self._min_s, seconds)
        self._max_s = max(self._max_s, seconds)

    def quantile(self, share: float, endless: int = 0) -> float | None:
        """The time within which this share (0..1) of all lies, by nearest rank.

        `endless` more are counted as if they had taken for ever: None when the rank is among them.
        """
        rank = max(1, math.ceil(share * (self.count + endless)))
        if rank > self.count:
            return None
        index = int(np.searchsorted(np.cumsum(self._counts), rank))
        value_us = self._histogram.get_value_from_index(index)
        upper_us = int(self._histogram.get_highest_equivalent_value(value_us))
        # A bucket's upper end may lie beyond the largest time that is in it.
        return min(upper_us / 1e6, max(self._max_s, 1e-6))

    def summary(self, endless: int = 0) -> LatencySummary:
        """Percentiles, with `endless` as in `quantile`; exact minimum, mean and maximum."""
        if not self.count:
            return LatencySummary()
        return LatencySummary(
            p50=self.quantile(0.5, endless),
            p90=self.quantile(0.9, endless),
            p99=self.quantile(0.99, endless),
            p999=self.quantile(0.999, endless),
            min=self._min_s,
            mean=self._sum_s / self.count,
            max=self._max_s,
        )
