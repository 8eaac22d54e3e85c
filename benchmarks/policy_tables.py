"""What the traces of ``benchmarks.serving_policies`` say, as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

_T95 = (12.7, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's quantile for so many degrees of freedom, from 1 on."""

_FEW = 3
"""Of fewer traces no interval is told."""

Traces = Sequence[Mapping[str, Any]]


def by_workload(traces: Traces) -> dict[str, Traces]:
    """The traces of each workload, in their order."""
    names = dict.fromkeys(trace["workload"] for trace in traces)
    return {name: [each for each in traces if each["workload"] == name] for name in names}


def mean_of(traces: Traces, policy: str, figure: str) -> float:
    """Mean over the seeds of a figure that every trace has."""
    values = [trace["policies"][policy][figure] for trace in traces]
    return statistics.fmean(value for value in values if value is not None)


def difference(traces: Traces, one: str, other: str, figure: str) -> tuple[float, float]:
    """Mean over the seeds of `one` less `other`, and half of its 95 % interval (0 with one seed)."""
    values = [trace["policies"][one][figure] - trace["policies"][other][figure] for trace in traces]
    if len(values) < 2:
        return values[0], 0.0
    wide = _T95[min(len(values) - 2, len(_T95) - 1)]
    return statistics.fmean(values), wide * statistics.stdev(values) / len(values) ** 0.5


def best_rival(traces: Traces, ours: str) -> str:
    """The other policy with the highest accuracy-goodput."""
    others = [name for name in traces[0]["policies"] if name != ours]
    return max(others, key=lambda name: mean_of(traces, name, "accuracy_goodput"))


def bound_of(traces: Traces) -> float:
    """Mean over the seeds of the most accuracy-goodput that can be had."""
    return statistics.fmean(trace["bound"]["accuracy_goodput"] for trace in traces)


def false_refusals(trace: Mapping[str, Any], ours: str) -> float:
    """Of what was offered the share that was refused beyond what nobody could have met; at most so much."""
    refused = sum(trace["policies"][ours]["refused"].values())
    return float(max(0.0, refused - (1.0 - trace["bound"]["attainment"])))


def markdown(traces: Traces, ours: str) -> str:
    """Four tables: accuracy-goodput, ours in detail, every policy's attainment, and its accuracy."""
    found = by_workload(traces)
    parts = [_goodput(found, ours), _details(found, ours)]
    parts += [_all(found, "attainment", 4), _all(found, "mean_accuracy", 4)]
    return "\n\n".join(parts) + "\n"


def _goodput(found: Mapping[str, Traces], ours: str) -> str:
    lines = [
        "| workload | ours | best rival | ours less rival | of the bound |",
        "|---|---|---|---|---|",
    ]
    for name, traces in found.items():
        rival = best_rival(traces, ours)
        mean = mean_of(traces, ours, "accuracy_goodput")
        less, wide = difference(traces, ours, rival, "accuracy_goodput")
        theirs = f"{mean_of(traces, rival, 'accuracy_goodput'):.4f} ({rival})"
        share = mean / bound_of(traces)
        between = f"{less:+.4f}" if len(traces) < _FEW else f"{less:+.4f} ± {wide:.4f}"
        lines.append(f"| {name} | {mean:.4f} | {theirs} | {between} | {share:.3f} |")
    return "\n".join(lines)


def _details(found: Mapping[str, Traces], ours: str) -> str:
    lines = [
        "| workload | attainment | accuracy | refused | false refusals, at most | broken promises "
        "| below a floor | coverage | error p50, p90, p99 | switches/s | rows |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, traces in found.items():
        figures = {
            key: mean_of(traces, ours, key)
            for key in (
                "attainment", "mean_accuracy", "broken_promises", "coverage", "error_p50",
                "error_p90", "error_p99", "switches_per_s", "mean_rows",
            )
        }  # fmt: skip
        refused = statistics.fmean(
            sum(trace["policies"][ours]["refused"].values()) for trace in traces
        )
        false = statistics.fmean(false_refusals(trace, ours) for trace in traces)
        violations = sum(trace["policies"][ours]["floor_violations"] for trace in traces)
        errors = ", ".join(f"{figures[f'error_{key}']:+.2f}" for key in ("p50", "p90", "p99"))
        lines.append(
            f"| {name} | {figures['attainment']:.4f} | {figures['mean_accuracy']:.4f} | {refused:.2%} "
            f"| {false:.2%} | {figures['broken_promises']:.3%} | {violations} "
            f"| {figures['coverage']:.3f} | {errors} | {figures['switches_per_s']:.0f} "
            f"| {figures['mean_rows']:.1f} |"
        )
    return "\n".join(lines)


def _all(found: Mapping[str, Traces], figure: str, digits: int) -> str:
    policies = list(next(iter(found.values()))[0]["policies"])
    head = figure.replace("_", " ")
    lines = [f"| {head} | " + " | ".join(policies) + " |", "|---|" + "---|" * len(policies)]
    for name, traces in found.items():
        cells = (f"{mean_of(traces, policy, figure):.{digits}f}" for policy in policies)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
