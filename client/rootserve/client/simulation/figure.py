"""Pictures of a simulated run over time, and of a plan."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rootserve.client.files import write_picture
from rootserve.client.simulation.documents import Simulated
from rootserve.client.simulation.planning import Plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#1668b8", "#c2570c", "#2b8a3e", "#7a3e9d", "#b8860b", "#555555", "#b02a6f", "#0f8b8d")
_INK = "#333333"


def draw_run(run: Simulated, path: Path) -> None:
    """Rates, variants and batches over time, to a file whose format follows from its name.

    Raises:
        InputError: The file cannot be written.
    """
    # Only here, so that no other command waits for it.
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(8, 7), layout="constrained", dpi=130)
    rate, variants, batches = figure.subplots(3, 1, sharex=True)
    times = [(each.begin_s + each.end_s) / 2 for each in run.series]
    widths = [each.end_s - each.begin_s for each in run.series]
    for name, key, colour in (("came", "offered", _INK), ("answered in time", "met", _COLOURS[0])):
        rates = [getattr(each, key) / wide for each, wide in zip(run.series, widths, strict=True)]
        rate.plot(times, rates, color=colour, label=name, lw=1.6)
    _finish(rate, "requests/s", legend=True)
    stack_variants(variants, run, times, widths)
    _finish(variants, "share of the images, %", legend=True)
    batches.plot(times, [each.mean_rows for each in run.series], color=_COLOURS[0], lw=1.6)
    _finish(batches, "images in a batch")
    batches.set_xlabel("seconds")
    figure.suptitle(f"{run.policy}: {run.summary.attainment:.2%} in time", fontsize=10, color=_INK)
    save(figure, path)


def stack_variants(
    axes: Any, run: Simulated, times: Sequence[float], widths: Sequence[float]
) -> None:
    """Columns of the variants' shares, the most frequent below."""
    below = [0.0] * len(times)
    for place, name in enumerate(run.summary.rows_by_variant):
        shares = [
            100.0 * each.rows.get(name, 0) / max(1, sum(each.rows.values())) for each in run.series
        ]
        colour = _COLOURS[place % len(_COLOURS)]
        axes.bar(times, shares, widths, bottom=below, color=colour, label=name)
        below = [low + share for low, share in zip(below, shares, strict=True)]


def draw_plan(made: Plan, path: Path) -> None:
    """What each number of workers holds, to a file whose format follows from its name.

    Raises:
        InputError: The file cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    figure = Figure(figsize=(7, 1.6 + 0.5 * len(made.options)), layout="constrained", dpi=130)
    axes = figure.subplots()
    names = [f"{option.workers} on {option.kind}" for option in made.options]
    for place, option in enumerate(made.options):
        share = 100 * option.summary.attainment
        axes.barh(place, share, color=_COLOURS[0] if option.holds else _COLOURS[1])
        told = f"accuracy {option.summary.mean_accuracy or 0.0:.4f}"
        if option.margin is not None:
            told += f", margin {option.margin:.0%}"
        axes.text(1, place, told, va="center", color="white", fontsize=9)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    _finish(axes, "")
    axes.set_xlabel(
        f"% of {made.need.rate:g} requests/s answered within {made.need.p99_s * 1e3:g} ms"
    )
    save(figure, path)


def _finish(axes: Any, label: str, *, legend: bool = False) -> None:
    axes.set_ylabel(label, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    if legend:
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def save(figure: "Figure", path: Path) -> None:
    """Write it.

    Raises:
        InputError: The file cannot be written.
    """
    write_picture(figure.savefig, path, "run.png")
