"""Two load reports side by side: the ratio of each figure, and what else differs between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rootserve.client.errors import InputError
from rootserve.client.load.statistics import LEAST_VALUES, Ratio, unpaired_ratio

Report = Mapping[str, Any]

# Options that may differ without a word: they are what one compares, or tell of themselves.
_SILENT = frozenset({"model", "server", "tls"})


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of both reports.

    Attributes:
        name: What it is.
        a: Of report A; None where it has none.
        b: Of report B.
        ratio: B over A.
        is_time: Whether it is in seconds; else it is per second.
    """

    name: str
    a: float | None
    b: float | None
    ratio: Ratio | None
    is_time: bool

    def to_json(self) -> dict[str, Any]:
        """The fields by name, ready for `json.dumps`."""
        ratio = self.ratio.to_json() if self.ratio else None
        return {"name": self.name, "a": self.a, "b": self.b, "ratio": ratio}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One run of each report, compared.

    Attributes:
        label: Of the runs.
        figures: Their figures.
        no_interval: Why there is no interval; None if the runs tell one.
    """

    label: str
    figures: Sequence[Figure]
    no_interval: str | None = None


def compare(a: Report, b: Report) -> list[Comparison]:
    """Compare two reports: run with run, or level with level of the same label.

    Raises:
        InputError: They are sweeps without a level in common, or one lacks figures.
    """
    try:
        return _compare(a, b)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"one of the reports is not whole: {error} is missing or unusable"
        ) from None


def _compare(a: Report, b: Report) -> list[Comparison]:
    if not (a["levels"] and b["levels"] and a["kind"] == b["kind"] == "sweep"):
        return [Comparison(_label(a, b), _figures(a, b), _no_interval(a, b))]
    theirs = {level["label"]: level for level in b["levels"]}
    pairs = [(level, theirs[level["label"]]) for level in a["levels"] if level["label"] in theirs]
    if not pairs:
        raise InputError("the two sweeps have no level in common; expected at least one")
    return [
        Comparison(mine["label"], _figures(mine, other), _no_interval(mine, other))
        for mine, other in pairs
    ]


def differences(a: Report, b: Report) -> list[str]:
    """What else differs: options, machines and versions, as sentences without a full stop."""
    found = []
    for name in a["options"].keys() & b["options"].keys() - _SILENT:
        mine, theirs = a["options"][name], b["options"][name]
        if mine != theirs and not (a["kind"] == b["kind"] == "sweep" and name in _LEVEL):
            found.append(f"option {name}: {mine} and {theirs}")
    for side in ("server", "client"):
        for name in ("version", "cpu", "cpu_count", "python", "engine", "precision"):
            mine, theirs = ((run.get(side) or {}).get(name) for run in (a, b))
            if mine != theirs:
                found.append(f"{side} {name}: {mine} and {theirs}")
    return sorted(found)


_LEVEL = frozenset({"concurrency", "rate", "loop"})


def _label(a: Report, b: Report) -> str:
    labels = dict.fromkeys((str(a["label"]), str(b["label"])))
    return " and ".join(labels)


def _figures(a: Report, b: Report) -> list[Figure]:
    throughputs = (
        ("rows/s", "throughput_rows_per_s", "rows"),
        ("requests/s", "throughput_requests_per_s", "answered"),
    )
    figures = [
        _figure(name, (a[key], b[key]), (_within(a, within), _within(b, within)), is_time=False)
        for name, key, within in throughputs
    ]
    # A second tells only two of the percentiles.
    percentiles = (("p50", "p50_s"), ("p90", None), ("p99", "p99_s"), ("p999", None))
    for name, within in percentiles:
        values = (a["response_time_s"][name], b["response_time_s"][name])
        varied = (_within(a, within), _within(b, within))
        figures.append(_figure(name.replace("p999", "p99.9"), values, varied, is_time=True))
    return figures


def _figure(
    name: str,
    values: tuple[float | None, float | None],
    within: tuple[Sequence[float | None], Sequence[float | None]],
    *,
    is_time: bool,
) -> Figure:
    return Figure(name, *values, unpaired_ratio(*values, *within), is_time)


def _within(run: Report, key: str | None) -> list[float | None]:
    """A figure for each whole second measured, without the first and last, which may be cut."""
    if key is None:
        return []
    return [step.get(key) for step in _whole_steps(run)]


def _whole_steps(run: Report) -> Sequence[Mapping[str, Any]]:
    measured = [step for step in run.get("time_series") or () if step["phase"] == "measured"]
    return measured[1:-1]


def _no_interval(a: Report, b: Report) -> str | None:
    """Why the runs tell no interval, as a sentence without a full stop; None if they tell one."""
    for name, run in (("A", a), ("B", b)):
        if not run.get("time_series"):
            return f"report {name} has no time series, which would tell how its figures varied"
        if (whole := len(_whole_steps(run))) < LEAST_VALUES:
            step_s = run.get("time_step_s") or 1
            return (
                f"run {name} has {whole} whole seconds between its first and its last, and "
                f"{LEAST_VALUES} are needed: measure {(LEAST_VALUES + 2) * step_s} s or longer"
            )
    return None
