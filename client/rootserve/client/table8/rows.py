"""The rows of the table as data: what was measured, the ratios that follow, and their JSON."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from rootserve.client.catalog import PaperFigures
from rootserve.client.errors import InputError

Column = Literal["cpu", "gpu"]
COLUMNS: tuple[Column, ...] = ("cpu", "gpu")
CATALOGUE = "the server's catalogue"
"""Source of an accuracy that was not measured through the service."""


class Spread(NamedTuple):
    """Median, least and greatest of a figure over the rounds, and the ends of its middle half."""

    median: float
    low: float
    high: float
    lower_quartile: float
    upper_quartile: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a variant computes on one kind of device.

    Attributes:
        rounds_ms: Milliseconds per image, one for each round. The variants took turns within a
            round, so figures of the same round may be compared.
        rows: Images in each batch.
        device: As torch names it, such as "cpu" or "cuda:0".
        device_name: The device's own name.
        threads: Threads of the worker; 0 on a GPU.
        engine: What computed.
        precision: Of the computation.
        server_version: Version of the server.
        libraries: Versions of what computed, by name.
        measured_at: ISO 8601, UTC.
    """

    rounds_ms: Sequence[float]
    rows: int
    device: str
    device_name: str
    threads: int
    engine: str
    precision: str
    server_version: str
    libraries: Mapping[str, str]
    measured_at: str

    @property
    def ms(self) -> Spread:
        """Milliseconds per image."""
        return _spread(self.rounds_ms)

    def speedup(self, orig: "Timing") -> Spread:
        """How many times faster than `orig`, by the ratios within each round.

        Raises:
            InputError: The two were not measured in the same rounds.
        """
        if len(self.rounds_ms) != len(orig.rounds_ms):
            raise InputError(
                f"{len(self.rounds_ms)} and {len(orig.rounds_ms)} rounds: expected times that "
                "were measured in the same rounds"
            )
        pairs = zip(orig.rounds_ms, self.rounds_ms, strict=True)
        return _spread([theirs / mine for theirs, mine in pairs])


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One variant.

    Attributes:
        name: Of the model.
        topology: "orig", "root", "tree" or "col".
        flops: The paper's FLOPS per image: multiply-accumulates plus one per bias.
        params: Weights and biases.
        accuracy: Top-1, 0..1; None when it is not known.
        accuracy_source: Where that comes from.
        note: Why something is missing.
        paper: What the paper reports; None where it reports nothing.
        cpu: Time on a CPU.
        gpu: Time on a GPU.
    """

    name: str
    topology: str
    flops: int
    params: int
    accuracy: float | None = None
    accuracy_source: str | None = None
    note: str | None = None
    paper: PaperFigures | None = None
    cpu: Timing | None = None
    gpu: Timing | None = None

    def timing(self, column: Column) -> Timing | None:
        """The time on that kind of device."""
        return self.cpu if column == "cpu" else self.gpu


@dataclass(frozen=True, slots=True)
class Table:
    """All rows, orig among them. `column` is the kind of device that was measured just now."""

    rows: Sequence[Row]
    column: Column

    @property
    def columns(self) -> list[Column]:
        """The kinds of device for which there are times."""
        return [column for column in COLUMNS if any(row.timing(column) for row in self.rows)]

    @property
    def orig(self) -> Row | None:
        """The row that the others are compared with."""
        return next((row for row in self.rows if row.topology == "orig"), None)

    def flops_ratio(self, row: Row) -> float | None:
        """FLOPs of orig over those of the row: the speed-up that counting promises."""
        return self.orig.flops / row.flops if self.orig and row.flops else None

    def speedup(self, row: Row, column: Column) -> Spread | None:
        """Measured speed-up over orig."""
        mine, theirs = row.timing(column), self.orig.timing(column) if self.orig else None
        return mine.speedup(theirs) if mine and theirs else None

    def paper_speedup(self, row: Row, column: Column) -> float | None:
        """The paper's own speed-up over its orig."""
        if self.orig is None or self.orig.paper is None or row.paper is None:
            return None
        name = f"{column}_ms"
        return float(getattr(self.orig.paper, name) / getattr(row.paper, name))

    def merged(self, other: "Table") -> "Table":
        """This table with the times of the other kind of device from another table.

        Accuracies are those of this table, unless the other's alone were measured.

        Raises:
            InputError: Both tables measured the same kind of device, or different variants.
        """
        theirs = {row.name: row for row in other.rows}
        if strange := theirs.keys() - {row.name for row in self.rows}:
            raise InputError(f"the table to merge has {sorted(strange)}, unknown to this server")
        if self.column in other.columns:
            raise InputError(
                f"the table to merge has {self.column} times, as this one; "
                "expected times of the other kind of device alone"
            )
        return replace(
            self,
            rows=[
                _merged(row, theirs[row.name]) if row.name in theirs else row for row in self.rows
            ],
        )

    def to_json(self) -> list[dict[str, Any]]:
        """One object per row, ready for `json.dumps`."""
        return [self._row_to_json(row) for row in self.rows]

    def _row_to_json(self, row: Row) -> dict[str, Any]:
        speedup = self.speedup(row, self.column)
        paper = (
            asdict(row.paper) if row.paper else {each.name: None for each in fields(PaperFigures)}
        )
        return {
            **asdict(row),
            **{
                f"{column}_ms": timing.ms.median if (timing := row.timing(column)) else None
                for column in COLUMNS
            },
            "speedup": speedup.median if speedup else None,
            "flops_ratio": self.flops_ratio(row),
            "paper": paper
            | {f"{column}_speedup": self.paper_speedup(row, column) for column in COLUMNS},
            **{column: self._timing_to_json(row, column) for column in COLUMNS},
        }

    def _timing_to_json(self, row: Row, column: Column) -> dict[str, Any] | None:
        timing = row.timing(column)
        if timing is None:
            return None
        speedup = self.speedup(row, column)
        return {
            "ms": timing.ms._asdict(),
            "speedup": speedup._asdict() if speedup else None,
            **asdict(timing),
        }


def read_table(path: Path) -> Table:
    """Read a table that `rootserve table8 --json` wrote.

    Raises:
        InputError: The file cannot be read or holds something else.
    """
    expected = "expected what 'rootserve table8 --json FILE' writes, with the times of one device"
    try:
        rows = [_read_row(row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {expected}") from None
    # Any form but the right one shows as one of these.
    except (ValueError, TypeError, KeyError, AttributeError, msgspec.ValidationError):
        raise InputError(f"{path}: {expected}") from None
    columns = [column for column in COLUMNS if any(row.timing(column) for row in rows)]
    if len(columns) != 1:
        raise InputError(f"{path}: has times of {len(columns)} kinds of device; {expected}")
    return Table(rows, columns[0])


def _read_row(row: dict[str, Any]) -> Row:
    # A row that the paper does not have has its keys all the same.
    paper = row["paper"] if row["paper"]["accuracy"] is not None else None
    read = msgspec.convert({**row, "paper": paper}, Row)
    for timing in (read.cpu, read.gpu):
        if timing and min(timing.rounds_ms, default=0) <= 0:
            raise ValueError("no times")
    return read


def _merged(row: Row, other: Row) -> Row:
    unmeasured = row.accuracy is None or row.accuracy_source == CATALOGUE
    known = other if unmeasured and other.accuracy is not None else row
    return replace(
        row,
        accuracy=known.accuracy,
        accuracy_source=known.accuracy_source,
        cpu=row.cpu or other.cpu,
        gpu=row.gpu or other.gpu,
    )


def _spread(values: Sequence[float]) -> Spread:
    lower, median, upper = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * [*values]
    )
    return Spread(median, min(values), max(values), lower, upper)
