"""Pictures of what ``benchmarks.serving_policies`` found: ``python -m benchmarks.policy_figures FILE.json``.

Attainment against accuracy, accuracy-goodput against load with the bound, and the step over time.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.policy_tables import Traces, bound_of, by_workload, mean_of
from benchmarks.policy_workloads import workloads
from benchmarks.serving_policies import OURS, TABLE, base_service
from rootserve.client.simulation.documents import Simulated
from rootserve.client.simulation.figure import draw_run
from rootserve.client.simulation.series import series_of

_LOAD = re.compile(r"Poisson, load ([\d.]+)")
_SHOWN = ("Poisson, load 0.9", "Poisson, load 1.2", "step, 0.3, 1.2, 0.3", "MAF-shaped, load 1")
_COLOURS = (
    "#1668b8",
    "#c2570c",
    "#2b8a3e",
    "#7a3e9d",
    "#b8860b",
    "#b02a6f",
    "#0f8b8d",
    "#777777",
    "#5a9bd5",
    "#8c564b",
    "#222222",
)
_MARKS = "osD^vP*Xd<>hp"


def _look(place: int) -> tuple[str, str]:
    """Colour and mark of a policy; their numbers differ, so that no two look alike."""
    return _COLOURS[place % len(_COLOURS)], _MARKS[place % len(_MARKS)]


def draw_against_load(found: Mapping[str, Traces], path: Path) -> None:
    """Accuracy-goodput of each policy over the load, as a share of the bound."""
    loads = {float(match[1]): found[name] for name in found if (match := _LOAD.fullmatch(name))}
    policies = list(next(iter(loads.values()))[0]["policies"])
    figure = Figure(figsize=(7.5, 4.2), layout="constrained", dpi=130)
    axes = figure.subplots()
    axes.plot(list(loads), [bound_of(traces) for traces in loads.values()], "k--", label="bound")
    for place, policy in enumerate(policies):
        values = [mean_of(traces, policy, "accuracy_goodput") for traces in loads.values()]
        width = 2.4 if policy == OURS else 1.1
        colour, mark = _look(place)
        axes.plot(list(loads), values, color=colour, lw=width, marker=mark, ms=4, label=policy)
    axes.set_xlabel("load: share of what the fastest variant does")
    axes.set_ylabel("accuracy-goodput")
    _finish(axes)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(path)


def draw_attainment(found: Mapping[str, Traces], path: Path) -> None:
    """Attainment against accuracy for four workloads: better is to the right and above."""
    shown = [name for name in _SHOWN if name in found]
    figure = Figure(figsize=(9, 6.5), layout="constrained", dpi=130)
    grid = figure.subplots(2, 2).ravel()
    for axes, name in zip(grid, shown, strict=False):
        traces = found[name]
        for place, policy in enumerate(traces[0]["policies"]):
            point = (100 * mean_of(traces, policy, key) for key in ("attainment", "mean_accuracy"))
            size = 80 if policy == OURS else 36
            colour, mark = _look(place)
            axes.scatter(*point, s=size, color=colour, marker=mark, label=policy)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("attainment, %", fontsize=8)
        axes.set_ylabel("accuracy of what was met, %", fontsize=8)
        _finish(axes)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    figure.savefig(path)


def draw_step(seconds: float, path: Path) -> None:
    """Our policy on the step, over time."""
    workload = next(each for each in workloads() if each.name.startswith("step"))
    service = workload.service(base_service(TABLE))
    run = service.run(workload.arrivals(service.capacity(), seconds, 1), seed=1)
    draw_run(Simulated(policy=OURS, summary=service.summary(run), series=series_of(run)), path)


def _finish(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)


def main() -> int:
    """Draw them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("json", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    args = parser.parse_args()
    told = json.loads(args.json.read_text())
    found = by_workload(told["traces"])
    draw_against_load(found, args.out / "policies-load.png")
    draw_attainment(found, args.out / "policies-attainment.png")
    draw_step(told["seconds"], args.out / "policies-step.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
