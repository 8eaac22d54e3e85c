"""Times in a high-dynamic-range histogram: constant memory, three significant digits."""

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from rootserve.client.load.report import NO_TIMES, LatencySummary

_LONGEST_US = 24 * 3600 * 1_000_000
_DIGITS = 3

# Shares at which a report tells the distribution; closer together where the tail is.
QUANTILES = (
    0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.98,
    0.99, 0.995, 0.9975, 0.999, 0.9995, 0.9999, 1.0,
)  # fmt: skip


def _new_histogram() -> Any:
    return HdrHistogram(1, _LONGEST_US, _DIGITS)


_SCALE = _new_histogram()  # only asked about its buckets
BUCKETS = int(_SCALE.counts_len)


def bucket_of(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of each time's bucket, as `HdrHistogram` counts them.

    The library takes one value at a time, in Python; a load generator that did so for every
    stage of every request would spend a tenth of its processor on it.
    """
    us = np.clip(np.rint(seconds * 1e6), 1, _LONGEST_US).astype(np.int64)
    bits = np.frexp((us | int(_SCALE.sub_bucket_mask)).astype(np.float64))[1]
    half_bits = int(_SCALE.sub_bucket_half_count_magnitude)
    power = bits - (half_bits + 1)
    index: NDArray[np.int64] = (
        ((power + 1) << half_bits) + (us >> power) - int(_SCALE.sub_bucket_half_count)
    )
    return index


def seconds_of(bucket: int) -> float:
    """The longest time that falls into the bucket."""
    value_us = _SCALE.get_value_from_index(bucket)
    return float(_SCALE.get_highest_equivalent_value(value_us)) / 1e6


class LatencyHistogram:
    """Times from 1 us to a day, with a resolution of 1 us or 0.1 %, whichever is coarser."""

    def __init__(self) -> None:
        self._histogram = _new_histogram()
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

    @property
    def sum_s(self) -> float:
        """Sum of all times."""
        return self._sum_s

    def record(self, seconds: float) -> None:
        """Record one time."""
        self.record_all(np.array([seconds]))

    def record_all(
        self, seconds: NDArray[np.float64], buckets: NDArray[np.int64] | None = None
    ) -> None:
        """Record times [N]; `buckets` is `bucket_of(seconds)` if the caller has it already."""
        if not len(seconds):
            return
        buckets = bucket_of(seconds) if buckets is None else buckets
        np.add.at(self._counts, buckets, 1)
        self._note(len(seconds), float(seconds.sum()), float(seconds.min()), float(seconds.max()))

    def merge(self, other: Self) -> None:
        """Add what another one recorded; no precision is lost."""
        if other.count:
            self._counts += other._counts
            self._note(other.count, other._sum_s, other._min_s, other._max_s)

    def _note(self, count: int, sum_s: float, min_s: float, max_s: float) -> None:
        self._histogram.total_count += count
        self._sum_s += sum_s
        self._min_s = min(self._min_s, min_s)
        self._max_s = max(self._max_s, max_s)
        # What the library encodes reaches to its largest value.
        self._histogram.max_value = min(max(1, round(self._max_s * 1e6)), _LONGEST_US)
        self._histogram.min_value = min(max(1, round(self._min_s * 1e6)), _LONGEST_US)

    def quantile(self, share: float, endless: int = 0) -> float | None:
        """The time within which this share (0..1) of all lies, by nearest rank.

        `endless` more are counted as if they had taken for ever: None when the rank is among them.
        """
        return self._quantiles((share,), endless)[0]

    def _quantiles(self, shares: Sequence[float], endless: int) -> list[float | None]:
        cumulated = np.cumsum(self._counts)
        values: list[float | None] = []
        for share in shares:
            rank = max(1, math.ceil(share * (self.count + endless)))
            if rank > self.count:
                values.append(None)
                continue
            upper_s = seconds_of(int(np.searchsorted(cumulated, rank)))
            # A bucket's upper end may lie beyond the largest time that is in it.
            values.append(min(upper_s, max(self._max_s, 1e-6)))
        return values

    def quantiles(self, endless: int = 0) -> list[tuple[float, float]]:
        """Pairs (share, time) of `QUANTILES`, without those that fall among the endless."""
        if not self.count:
            return []
        values = self._quantiles(QUANTILES, endless)
        pairs = zip(QUANTILES, values, strict=True)
        return [(share, value) for share, value in pairs if value is not None]

    def summary(self, endless: int = 0) -> LatencySummary:
        """Percentiles, with `endless` as in `quantile`; exact minimum, mean and maximum."""
        if not self.count:
            return NO_TIMES
        p50, p90, p99, p999 = self._quantiles((0.5, 0.9, 0.99, 0.999), endless)
        return LatencySummary(
            p50=p50,
            p90=p90,
            p99=p99,
            p999=p999,
            min=self._min_s,
            mean=self._sum_s / self.count,
            max=self._max_s,
        )

    def encoded(self) -> str:
        """The counts in microseconds as HdrHistogram V2: compressed, base64."""
        return str(self._histogram.encode().decode("ascii"))

    def __getstate__(self) -> dict[str, Any]:
        """What crosses a pipe: the counts that are not zero."""
        used = np.flatnonzero(self._counts)
        figures = (self.count, self._sum_s, self._min_s, self._max_s)
        return {"buckets": used, "counts": self._counts[used], "figures": figures}

    def __setstate__(self, state: dict[str, Any]) -> None:
        LatencyHistogram.__init__(self)
        self._counts[state["buckets"]] = state["counts"]
        if state["figures"][0]:
            self._note(*state["figures"])
