"""Two load reports side by side: the ratio of each figure, and what else differs between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from rootserve.client.errors import InputError
from rootserve.client.load.report import PERCENTILES, LoadResult, Report, Second
from rootserve.client.load.statistics import LEAST_VALUES, Ratio, unpaired_ratio

# Options that may differ without a word: they are what one compares, or tell of themselves.
_SILENT = frozenset({"model", "server", "tls"})
# Of a sweep, those that distinguish its levels.
_LEVEL = frozenset({"concurrency", "rate", "loop"})
_UNLIKE = "largest batches, by which a part of the ratio may come about:"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of both reports.

    Attributes:
        name: What it is.
        a: Of report A; None where it has none.
        b: Of report B.
        ratio: B over A.
        is_time: Whether it is in seconds; else it is per second, or of what `unit` says.
        unit: "share" and "accuracy" are 0..1, "count" is a number of requests; empty for the others.
    """

    name: str
    a: float | None
    b: float | None
    ratio: Ratio | None
    is_time: bool
    unit: str = ""


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
        InputError: They are sweeps without a level in common.
    """
    if not (a.levels and b.levels and a.kind == b.kind == "sweep"):
        return [_comparison(" and ".join(dict.fromkeys((a.label, b.label))), a, b)]
    theirs = {level.label: level for level in b.levels}
    pairs = [(level, theirs[level.label]) for level in a.levels if level.label in theirs]
    if not pairs:
        raise InputError("the two sweeps have no level in common; expected at least one")
    return [_comparison(mine.label, mine, other) for mine, other in pairs]


def differences(a: Report, b: Report) -> list[str]:
    """What else differs: options, machines and versions, as sentences without a full stop."""
    silent = _SILENT | _LEVEL if a.kind == b.kind == "sweep" else _SILENT
    found = [
        f"option {name}: {a.options[name]} and {b.options[name]}"
        for name in a.options.keys() & b.options.keys() - silent
        if a.options[name] != b.options[name]
    ]
    for side, one, other in (("server", a.server, b.server), ("client", a.client, b.client)):
        found += [
            f"{side} {name}: {one.get(name)} and {other.get(name)}"
            for name in ("version", "cpu", "cpu_count", "python", "engine", "precision")
            if one.get(name) != other.get(name)
        ]
    return sorted(found) + _different_limits(a, b)


def limits_text(report: Report) -> str:
    """Rows that batches have at most, of each model in a few words; empty where the server did not tell."""
    limits = report.server.get("batch_limits") or {}
    return ", ".join(
        f"{rows} row{'' if rows == 1 else 's'} of {name}" for name, rows in limits.items()
    )


def unlike_limits(report: Report) -> str | None:
    """A sentence, without a full stop, if the two sides of pairs make batches of different sizes."""
    limits = report.server.get("batch_limits") or {}
    if not report.pairs or len(set(limits.values())) < 2:
        return None
    return f"{_UNLIKE} {limits_text(report)}"


def _different_limits(a: Report, b: Report) -> list[str]:
    one, other = ((each.server.get("batch_limits") or {}) for each in (a, b))
    shared = one.keys() & other.keys()
    if shared:
        alike = all(one[name] == other[name] for name in shared)
    else:
        alike = not (one and other) or set(one.values()) == set(other.values())
    return [] if alike else [f"{_UNLIKE} {limits_text(a)} and {limits_text(b)}"]


# What is compared, where it is found in a run, and in one of its seconds, which tell only two percentiles.
_FIGURES = (
    ("rows/s", "throughput_rows_per_s", "rows"),
    ("requests/s", "throughput_requests_per_s", "answered"),
    *(
        (name, f"response_time_s.{key}", f"{key}_s" if hasattr(Second, f"{key}_s") else None)
        for key, name in PERCENTILES.items()
    ),
)

_ATTAINED = (
    ("attainment", "attainment", "share", "in_time"),
    ("goodput", "accuracy_goodput", "accuracy", "accuracy_in_time"),
    ("accuracy", "mean_accuracy", "accuracy", None),
    ("late", "late", "count", None),
    ("promises broken", "promises_broken", "count", None),
)


def _comparison(label: str, a: LoadResult, b: LoadResult) -> Comparison:
    figures = []
    for name, path, within in _FIGURES:
        values = attrgetter(path)(a), attrgetter(path)(b)
        ratio = unpaired_ratio(*values, _within(a, within), _within(b, within))
        figures.append(Figure(name, *values, ratio, path.startswith("response_time_s")))
    return Comparison(label, [*figures, *_attained(a, b)], _no_interval(a, b))


def _attained(a: LoadResult, b: LoadResult) -> list[Figure]:
    """What was kept of deadlines and floors, if one of them had some."""
    if a.attained is None and b.attained is None:
        return []
    found = []
    for name, key, unit, within in _ATTAINED:
        values = getattr(a.attained, key, None), getattr(b.attained, key, None)
        ratio = None
        if within is not None:
            ratio = unpaired_ratio(*values, _per_due(a, within), _per_due(b, within))
        found.append(Figure(name, *values, ratio, is_time=False, unit=unit))
    variants, reasons = (
        dict.fromkeys(name for each in both for name in each)
        for both in (
            [run.attained.variants if run.attained else {} for run in (a, b)],
            [run.reasons.keys() - run.errors.keys() for run in (a, b)],
        )
    )
    for name in sorted(variants):
        shares = _share_of(name, a), _share_of(name, b)
        found.append(Figure(f"by {name}", *shares, None, is_time=False, unit="share"))
    for name in sorted(reasons):
        counts = a.reasons.get(name, 0), b.reasons.get(name, 0)
        found.append(Figure(name, *counts, None, is_time=False, unit="count"))
    return found


def _share_of(variant: str, run: LoadResult) -> float | None:
    """Of a run's answers, the share that a variant computed."""
    found = run.attained.variants if run.attained else {}
    return found.get(variant, 0) / sum(found.values()) if found else None


def _per_due(run: LoadResult, key: str) -> list[float | None]:
    """A figure of each whole second measured, over the requests due in it."""
    return [getattr(step, key) / step.due if step.due else None for step in _whole_steps(run)]


def _within(run: LoadResult, key: str | None) -> list[float | None]:
    """A figure for each whole second measured, without the first and last, which may be cut."""
    return [getattr(step, key) for step in _whole_steps(run)] if key else []


def _whole_steps(run: LoadResult) -> Sequence[Second]:
    return [step for step in run.time_series if step.phase == "measured"][1:-1]


def _no_interval(a: LoadResult, b: LoadResult) -> str | None:
    """Why the runs tell no interval, as a sentence without a full stop; None if they tell one."""
    for name, run in (("A", a), ("B", b)):
        if not run.time_series:
            return f"report {name} has no time series, which would tell how its figures varied"
        if (whole := len(_whole_steps(run))) < LEAST_VALUES:
            return (
                f"run {name} has {whole} whole seconds between its first and its last, and "
                f"{LEAST_VALUES} are needed: measure {(LEAST_VALUES + 2) * run.time_step_s:g} s or longer"
            )
    return None
