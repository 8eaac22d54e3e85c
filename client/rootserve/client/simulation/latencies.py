"""How long batches really take in a simulation: distributions that a latency table tells by p50 and p99."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from rootserve.client.errors import InputError

_Z99 = 2.3263478740408408
"""The 99th percentile of the standard normal distribution."""


class Cell(NamedTuple):
    """Seconds that a batch of so many rows takes: the median and the 99th percentile."""

    rows: int
    p50_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class Latencies:
    """What was measured for each kind of worker and variant, by rows, smallest first.

    Raises:
        InputError: Nothing was measured for one, or a figure is none.
    """

    cells: Mapping[tuple[str, str], Sequence[Cell]]

    def __post_init__(self) -> None:
        for (kind, variant), cells in self.cells.items():
            if not cells:
                raise InputError(f"no latency of {variant} on {kind or 'its worker'} is known")
            for cell in cells:
                if not (0 < cell.p50_s <= cell.p99_s < math.inf and cell.rows > 0):
                    raise InputError(
                        f"{variant}, {cell.rows} rows: p50 {cell.p50_s:g} s and p99 {cell.p99_s:g} s "
                        "came; expected 0 < p50 <= p99"
                    )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of workers."""
        return tuple(dict.fromkeys(kind for kind, _ in self.cells))

    def variants(self, kind: str) -> tuple[str, ...]:
        """Those of which something is known on workers of a kind."""
        return tuple(variant for each, variant in self.cells if each == kind)

    def of(self, kind: str, variant: str, rows: int) -> tuple[float, float]:
        """Median and 99th percentile of a batch, between sizes in proportion, beyond them by the row.

        Raises:
            InputError: Nothing is known of that variant there.
        """
        cells = self.cells.get((kind, variant))
        if cells is None:
            raise InputError(f"no latency of {variant} on {kind or 'its worker'} is known")
        at = bisect_left(cells, rows, key=lambda cell: cell.rows)
        if (at < len(cells) and cells[at].rows == rows) or at == 0:
            return cells[at].p50_s, cells[at].p99_s
        if at == len(cells):
            more = rows / cells[-1].rows
            return cells[-1].p50_s * more, cells[-1].p99_s * more
        low, high = cells[at - 1], cells[at]
        share = (rows - low.rows) / (high.rows - low.rows)
        return (
            low.p50_s + share * (high.p50_s - low.p50_s),
            low.p99_s + share * (high.p99_s - low.p99_s),
        )

    def drawn_s(self, kind: str, variant: str, rows: int, z: float) -> float:
        """Seconds of one batch, log-normal with that median and percentile, for a standard normal `z`."""
        p50_s, p99_s = self.of(kind, variant, rows)
        return p50_s * math.exp(math.log(p99_s / p50_s) * z / _Z99)

    def mean_s(self, kind: str, variant: str, rows: int) -> float:
        """The mean of those."""
        p50_s, p99_s = self.of(kind, variant, rows)
        sigma = math.log(p99_s / p50_s) / _Z99
        return p50_s * math.exp(sigma**2 / 2)

    def row_s(self, kind: str, variant: str, most_rows: int) -> float:
        """Mean seconds for a row in the batches, of up to `most_rows`, in which rows are cheapest."""
        cells = self.cells[kind, variant]
        sizes = {min(cell.rows, most_rows) for cell in cells} | {most_rows}
        return min(self.mean_s(kind, variant, rows) / rows for rows in sizes)

    def scaled(self, factor: float) -> Self:
        """All of them so many times as long."""
        return type(self)(
            {
                key: [Cell(cell.rows, cell.p50_s * factor, cell.p99_s * factor) for cell in cells]
                for key, cells in self.cells.items()
            }
        )
