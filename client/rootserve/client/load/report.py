"""The document of a load test, from measuring to JSON, tables, page and CSV; docs/load.md explains its keys.

Its keys are the names of these fields, and what is read again is checked against their types.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from rootserve.client.errors import InputError
from rootserve.client.files import read_document, write_text
from rootserve.client.load.statistics import Ratio

SCHEMA = "rootserve.load/1"
SCHEMA_VERSION = 1
_EXPECTED = f"expected a report of 'rootserve load --json', schema {SCHEMA}"

Kind = Literal["run", "sweep", "find_max", "pairs"]
# Percentiles of a distribution, by the name of their field and as people write them.
PERCENTILES = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9"}


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """A distribution of times in seconds; None where no recorded time tells the figure."""

    p50: float | None
    p90: float | None
    p99: float | None
    p999: float | None
    min: float | None = None
    mean: float | None = None
    max: float | None = None


NO_TIMES = LatencySummary(None, None, None, None)
"""Of which nothing was recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attained:
    """What was kept of deadlines and accuracy floors, of all requests that were due.

    Refused, failed and unfinished requests are not in time: `attainment` is `in_time` over all. A request
    without a deadline is in time when it is answered. Accuracies are None where one of them is not known.
    """

    in_time: int
    late: int
    promises_broken: int
    below_floor: int = 0
    attainment: float | None = None
    attainment_from_arrival: float | None = None
    accuracy_goodput: float | None = None
    mean_accuracy: float | None = None
    variants: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is told of a whole run as of each model and server in it."""

    requests: int
    succeeded: int
    errors: Mapping[str, int]
    unfinished: int
    throughput_requests_per_s: float
    throughput_rows_per_s: float
    response_time_s: LatencySummary
    service_time_s: LatencySummary
    reasons: Mapping[str, int] = field(default_factory=dict)
    attained: Attained | None = None

    @property
    def failed(self) -> int:
        """Requests that got no answer."""
        return self.requests - self.succeeded


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Figures):
    """The figures of one model or one server."""

    name: str


@dataclass(frozen=True, slots=True)
class Trial:
    """One measured window: requests answered in it per second, and their p99."""

    start_s: float
    end_s: float
    throughput_requests_per_s: float
    p99_s: float | None
    counted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Second:
    """One step of a run: what was due, sent and answered in it, and how many were under way at its end.

    `second` is its begin, `phase` "warm-up", "measured" or "after". The times are of what was answered in it,
    and so are `variants`; `in_time` and `accuracy_in_time` are of what was due in it.
    """

    second: float
    phase: str
    due: int = 0
    sent: int = 0
    late: int = 0
    answered: int = 0
    rows: int = 0
    failed: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    in_flight: int = 0
    p50_s: float | None = None
    p99_s: float | None = None
    max_s: float | None = None
    in_time: int = 0
    accuracy_in_time: float = 0.0
    variants: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult(Figures):
    """What a load run measured; `rootserve.client.load.recording` says what counts into which figure.

    A run that was interrupted covers what was measured until then. What nothing recorded tells is None, and
    the stages are when the server sent no timeline.
    """

    label: str = ""
    model: str = ""
    loop: str
    concurrency: int | None = None
    rate: int | float | str | None = None
    started_at: str
    window_s: float
    interrupted: bool = False
    outcomes: Mapping[str, int]
    offered_requests_per_s: float
    response_quantiles_s: Sequence[tuple[float, float | None]] = ()
    p99_of_all_s: float | None = None
    all_but_one_s: float | None = None
    late_departures: int
    held_back: int = 0
    max_lateness_s: float = 0.0
    stages_s: Mapping[str, float] | None = None
    mean_batch_rows: float | None = None
    stages_by_percentile_s: Mapping[str, Mapping[str, float]] | None = None
    stage_times_s: Mapping[str, LatencySummary] | None = None
    batch_rows: Mapping[int, int] = field(default_factory=dict)
    time_step_s: float = 1
    time_series: Sequence[Second] = ()
    by_model: Sequence[Part] = ()
    by_server: Sequence[Part] = ()
    trials: Sequence[Trial] = ()
    stable: bool | None = None
    last_answer_s: float | None = None
    lost_processes: int = 0
    client_cpu_cores: float
    client_limited: bool = False
    warnings: Sequence[str] = ()
    histograms: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Objective:
    """What was asked for, whether it was met, and in one line by how much it was or was not.

    Asked were a p99, an attainment, or both. `decided` is whether the requests were enough to judge, or the
    search finished; if not, nothing is met.
    """

    p99_s: float | None
    met: bool
    text: str
    decided: bool = True
    attainment: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One run of a search: its rate, whether it held the objective, its p99 (of all) and its attainment.

    `held` is None if too few requests came to judge; `level` is the run's place in the report's levels.
    """

    rate: float
    held: bool | None
    p99_s: float | None
    level: int
    attainment: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FindMax:
    """What a search for the highest rate has found; `Found` in `load/search.py` explains the rates."""

    objective_p99_s: float | None
    objective_attainment: float | None = None
    limit: float | None = None
    low: float | None = None
    high: float | None = None
    rate: float | None = None
    lowest_missed: float | None = None
    uncertainty: float | None = None
    complete: bool = True
    text: str
    client_limited: bool = False
    steps: Sequence[Step]


@dataclass(frozen=True, slots=True)
class Pairs:
    """What runs in turns have told: labels of A and B, how many rounds, and ratios of B to A by figure."""

    a: str | None
    b: str | None
    rounds: int
    ratios: Mapping[str, Ratio | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(LoadResult):
    """One run, and with it all those of a sweep, a search or pairs: it is the one that stands for them."""

    schema: str = SCHEMA
    schema_version: int = SCHEMA_VERSION
    kind: Kind
    model: str
    options: Mapping[str, Any]
    levels: Sequence[LoadResult]
    objective: Objective | None = None
    find_max: FindMax | None = None
    pairs: Pairs | None = None
    command: str | None = None
    server: Mapping[str, Any] = field(default_factory=dict)
    client: Mapping[str, Any] = field(default_factory=dict)

    @property
    def runs(self) -> Sequence[LoadResult]:
        """All of them."""
        return self.levels or (self,)

    def to_json(self) -> dict[str, Any]:
        """The document, ready for `json.dumps`. Times are in seconds; None where nothing tells them."""
        document: dict[str, Any] = msgspec.to_builtins(self, str_keys=True)
        first = ("schema", "schema_version", "kind")
        return {key: document[key] for key in first} | document

    @classmethod
    def from_json(cls, document: object) -> Self:
        """The report in a document of this version or an earlier one.

        Raises:
            InputError: It is no such document; the message names what is missing or of another kind.
        """
        if not isinstance(document, Mapping) or "schema" not in document:
            raise InputError(f"is no load report; {_EXPECTED}")
        if document["schema"] != SCHEMA:
            raise InputError(f"has the schema {document['schema']!r}; {_EXPECTED}")
        try:
            return msgspec.convert(document, cls, str_keys=True)
        except msgspec.ValidationError as error:
            raise InputError(f"is not whole: {error}; {_EXPECTED}") from None


def read_report(path: Path) -> Report:
    """Read a report.

    Raises:
        InputError: The file cannot be read, or is no report of a schema known here.
    """
    return read_document(path, Report.from_json, _EXPECTED)


def write_report(report: Report, path: Path) -> None:
    """Write a report.

    Raises:
        InputError: The file cannot be written.
    """
    write_text(json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n", path)
