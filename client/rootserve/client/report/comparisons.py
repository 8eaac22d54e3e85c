"""The figures of a report of several runs: a sweep, a search for the highest rate, pairs of A and B."""

from collections.abc import Mapping, Sequence
from typing import Any

from rootserve.client.report import axes, charts
from rootserve.client.report.charts import Plane, Series, Span
from rootserve.client.report.figures import Figure, Report
from rootserve.client.report.words import rounded, tick_time
from rootserve.client.units import count, duration, percent

_RATIOS = {
    "throughput_rows_per_s": "throughput",
    "p50_s": "p50 of the response time",
    "p99_s": "p99 of the response time",
}
_HELD = {True: "held", False: "missed", None: "too few requests"}
_LEVEL_HEAD = (
    "run", "rows/s", "requests/s", "p50", "p90", "p99", "p99.9", "failed", "late", "stable",
)  # fmt: skip


def throughput_latency(report: Report) -> list[Figure]:
    """Throughput against latency, one point for each level of a sweep."""
    levels = report.get("levels") or []
    if len(levels) < 2 or report["kind"] != "sweep":
        return []
    kinds = (("p50", "p50"), ("p99", "p99"))
    series = []
    for name, style in kinds:
        ordered = sorted(levels, key=_order)
        points = [(run["throughput_rows_per_s"], run["response_time_s"][name]) for run in ordered]
        titles = [
            f"{run['label']}: {run['throughput_rows_per_s']:,.1f} rows/s, {name} {duration(time)}"
            for run, (_, time) in zip(ordered, points, strict=True)
        ]
        labels = [run["label"] for run in ordered] if name == "p99" else ()
        series.append(Series(name, style, points, titles, labels))
    times = [time for each in series for _, time in each.points if time is not None]
    objective = _objective(report)
    x = axes.linear("rows/s answered", [run["throughput_rows_per_s"] for run in levels], rounded)
    y = axes.of_times("response time", [*times, *objective], tick_time)
    legend = [("line " + style, name) for name, style in kinds]
    for goal in objective:
        ends = [(x.low, goal), (x.high, goal)]
        series.append(Series(f"objective {duration(goal)}", "objective", ends, marked=False))
        legend.append(("line objective", f"objective: {duration(goal)}"))
    best = max(levels, key=lambda run: run["throughput_rows_per_s"])
    return [
        Figure(
            "Throughput against latency",
            "One point for each run. Where the curve turns up, more load only makes callers wait.",
            lambda width: charts.lines(
                "Throughput against latency",
                f"The highest throughput is {best['throughput_rows_per_s']:,.1f} rows/s, with "
                f"{best['label']}.",
                Plane(x, y, width, 300),
                series,
            ),
            legend,
            _LEVEL_HEAD,
            [_level_row(run) for run in levels],
        )
    ]


def _order(run: Mapping[str, Any]) -> float:
    asked = run["concurrency"] if run["concurrency"] is not None else run["rate"]
    return float(asked) if isinstance(asked, int | float) else 0.0


def _objective(report: Report) -> list[float]:
    objective = report.get("objective")
    return [objective["p99_s"]] if objective else []


def _level_row(run: Mapping[str, Any]) -> list[str]:
    times = run["response_time_s"]
    stable = {True: "yes", False: "no", None: "-"}[run.get("stable")]
    return [
        run["label"],
        f"{run['throughput_rows_per_s']:,.1f}",
        f"{run['throughput_requests_per_s']:,.1f}",
        *(duration(times[name]) for name in ("p50", "p90", "p99", "p999")),
        count(sum(run["errors"].values()) + run["unfinished"]),
        count(run["late_departures"]),
        stable,
    ]


def search(report: Report) -> list[Figure]:
    """The steps of a search for the highest rate that holds an objective."""
    found = report.get("find_max")
    if not found:
        return []
    steps = found["steps"]
    rates = [step["rate"] for step in steps]
    times = [step["p99_s"] for step in steps if step["p99_s"] is not None]
    goal = found["objective_p99_s"]
    x = axes.linear("requests/s asked", rates, rounded)
    y = axes.of_times("p99 of all requests", [*times, goal], tick_time)
    series = []
    kinds = (
        (True, "held", "ok"),
        (False, "missed", "p99"),
        (None, "too few requests", "unfinished"),
    )
    for held, name, style in kinds:
        chosen = [step for step in steps if step["held"] is held]
        series.append(
            Series(
                name,
                style,
                # A p99 that is not known is beyond what is drawn: at the top.
                [(s["rate"], y.high if s["p99_s"] is None else s["p99_s"]) for s in chosen],
                [f"{s['rate']:,.1f}/s {name}: {duration(s['p99_s'])}" for s in chosen],
                joined=False,
            )
        )
    series.append(Series("objective", "objective", [(x.low, goal), (x.high, goal)], marked=False))
    interval = []
    if found.get("low") is not None:
        interval.append(Span(max(x.low, found["low"]), min(x.high, found["high"]), "95 % interval"))
    legend = [("fill ok", "held"), ("fill p99", "missed")]
    if interval:
        legend.append(("fill span", "95 % interval of the limit"))
    if any(step["held"] is None for step in steps):
        legend.append(("fill unfinished", "too few requests to judge"))
    return [
        Figure(
            "The search for the highest rate",
            found["text"],
            lambda width: charts.lines(
                "The search for the highest rate",
                found["text"],
                Plane(x, y, width, 260),
                series,
                interval,
            ),
            [*legend, ("line objective", f"objective: {duration(goal)}")],
            [_LEVEL_HEAD[0], "p99 of all", "objective", *_LEVEL_HEAD[1:]],
            [
                [label, duration(step["p99_s"]), _HELD[step["held"]], *figures]
                for step in steps
                for label, *figures in [_level_row(report["levels"][step["level"]])]
            ],
        )
    ]


def pairs(report: Report) -> list[Figure]:
    """Ratios of B to A with their intervals."""
    found = report.get("pairs")
    if not found:
        return []
    ratios = {
        name: found["ratios"][key] for key, name in _RATIOS.items() if found["ratios"].get(key)
    }
    ends = [
        value
        for each in ratios.values()
        for value in (each["ratio"], each["low"], each["high"])
        if value is not None
    ]
    if not ends:
        return []
    widest = 1.15 * max(abs(value - 1) for value in ends) or 0.1
    low, high = max(0.0, 1 - widest), 1 + widest
    ticks = [(low + (high - low) * n / 4, f"{low + (high - low) * n / 4:.2f}") for n in range(5)]
    x = axes.Axis(f"{found['b']} over {found['a']}", low, high, ticks)
    names = list(ratios)
    y = axes.Axis("", 0, len(names), [(len(names) - n - 0.5, _short(name)) for n, name in
                                      enumerate(names)])  # fmt: skip
    series = [Series("no difference", "objective", [(1.0, 0), (1.0, len(names))], marked=False)]
    for n, name in enumerate(names):
        each, at = ratios[name], len(names) - n - 0.5
        if each["low"] is not None:
            interval = [(each["low"], at), (each["high"], at)]
            series.append(Series("95 % interval", "p50", interval, marked=False))
        series.append(
            Series(name, "p50", [(each["ratio"], at)], [f"{name}: {_ratio(each)}"], joined=False)
        )
    rounds = found["rounds"]
    return [
        Figure(
            f"{found['b']} against {found['a']}",
            f"Ratios over {rounds} round{'s' if rounds > 1 else ''} in which the two took turns: "
            "geometric mean and its 95 % interval. An interval that holds 1 shows no difference.",
            lambda width: charts.lines(
                "Ratios of B to A",
                "; ".join(f"{name} {_ratio(each)}" for name, each in ratios.items()),
                Plane(x, y, width, 60 + 40 * len(names)),
                series,
            ),
            [],
            ["figure", "ratio", "from", "to"],
            [
                [name, *(_number(each[key]) for key in ("ratio", "low", "high"))]
                for name, each in ratios.items()
            ],
        )
    ]


def _short(name: str) -> str:
    return name.partition(" ")[0]


def _ratio(each: Mapping[str, float | None]) -> str:
    if each["low"] is None:
        return _number(each["ratio"])
    return f"{_number(each['ratio'])} ({_number(each['low'])} to {_number(each['high'])})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def parts_rows(parts: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Rows of a table of the models or servers of a mixed run."""
    return [
        [
            part["name"],
            count(part["requests"]),
            percent((part["requests"] - part["succeeded"]) / part["requests"])
            if part["requests"]
            else "-",
            f"{part['throughput_rows_per_s']:,.1f}",
            *(duration(part["response_time_s"][name]) for name in ("p50", "p90", "p99", "p999")),
        ]
        for part in parts
    ]
