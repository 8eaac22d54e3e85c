"""The table as text for a terminal and as Markdown."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table as Grid

from rootserve.client.table8.rows import Row, Spread, Table, Timing
from rootserve.client.tables import figures_table
from rootserve.client.units import count, millions, percent

_NAMES = {"cpu": "CPU", "gpu": "GPU"}
EXPLANATION = (
    "Time: of a forward pass over a large batch, per image, by the server's own clock "
    "(compute_ns over batch_rows); median of the rounds. Speed-up: orig's time over the "
    "variant's, within each round; median (range). FLOPs: multiply-accumulates and biases, as the "
    "paper counts. FLOPs ratio: the speed-up that counting them promises. Paper: "
    '"Deep Roots" (CVPR 2017), measured on two Xeon E5-2680 v2 and a Titan Z; its times do not '
    "compare with today's machines, its ratios do."
)


def print_table(screen: Console, table: Table) -> None:
    """The table, and what was measured how. A screen too narrow for the ranges goes without them."""
    grid = _grid(screen, table, ranges=True)
    # How wide it would like to be, were there room.
    wanted = Measurement.get(screen, screen.options.update(width=1000), grid).maximum
    if wanted > screen.width:
        grid = _grid(screen, table, ranges=False)
    screen.print(grid)
    screen.print()
    notes = [f"{note}: {', '.join(names)}" for note, names in _notes(table.rows).items()]
    for line in (*facts(table), *notes, EXPLANATION):
        screen.print(line, style="dim", markup=False)


def markdown(table: Table) -> str:
    """The table as a Markdown page section, ended by a line feed."""
    head = ["model", "FLOPs", "params", "accuracy", "accuracy in the paper"]
    for column in table.columns:
        name = _NAMES[column]
        head += [f"{name} ms (range)", f"{name} speed-up (range)", f"{name} speed-up in the paper"]
    head.append("FLOPs ratio")
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for row in table.rows:
        cells = [f"`{row.name}`", count(row.flops), count(row.params), _share(row.accuracy)]
        cells.append(_share(row.paper.accuracy if row.paper else None))
        for column in table.columns:
            timing = row.timing(column)
            cells += [
                _ratio(timing.ms, 3) if timing else "-",
                _ratio(table.speedup(row, column)),
                _number(table.paper_speedup(row, column)),
            ]
        lines.append(_line([*cells, _number(table.flops_ratio(row))]))
    notes = [f"- {note}: {', '.join(names)}" for note, names in _notes(table.rows).items()]
    measured = [f"- {line}" for line in facts(table)]
    return "\n".join([*lines, "", *measured, *notes, "", EXPLANATION, ""])


def facts(table: Table) -> list[str]:
    """One line for each kind of device on what was measured with, and one on the accuracies."""
    lines = []
    for column in table.columns:
        timings = [found for row in table.rows if (found := row.timing(column))]
        lines.append(f"{_NAMES[column]}: {_provenance(timings)}")
    sources = sorted({row.accuracy_source for row in table.rows if row.accuracy_source})
    if sources:
        lines.append(f"Accuracy: {'; '.join(sources)}")
    return lines


def _provenance(timings: Sequence[Timing]) -> str:
    timing = timings[0]
    precisions = " and ".join(dict.fromkeys(each.precision for each in timings))
    threads = f", {timing.threads} threads" if timing.threads else ""
    rounds = len(timing.rounds_ms)
    version = timing.libraries.get(timing.engine, "")
    return (
        f"{timing.device_name} ({timing.device}{threads}), "
        f"{' '.join(filter(None, (timing.engine, version)))} in {precisions}, "
        f"batches of {timing.rows}, {rounds} round{'s' if rounds > 1 else ''}, "
        f"rootserve {timing.server_version}, {timing.measured_at}"
    )


def _grid(screen: Console, table: Table, *, ranges: bool) -> Grid:
    # Nobody needs a column of dashes, and a narrow screen has no room for one.
    accurate = any(row.accuracy is not None for row in table.rows)
    heads = ["model", "params", *(["accuracy"] if accurate else []), "FLOPs", "ratio"]
    for column in table.columns:
        heads += [f"{_NAMES[column]} ms", "speed-up", "paper"]
    grid = figures_table(screen, *heads)
    for row in table.rows:
        cells = [escape(row.name), count(row.params)]
        cells += [percent(row.accuracy)] if accurate else []
        cells += [millions(row.flops), _number(table.flops_ratio(row))]
        for column in table.columns:
            timing = row.timing(column)
            speedup = table.speedup(row, column)
            cells += [
                f"{timing.ms.median:.3g}" if timing else "-",
                _ratio(speedup) if ranges else _number(speedup.median if speedup else None),
                _number(table.paper_speedup(row, column)),
            ]
        grid.add_row(*cells)
    return grid


def _notes(rows: Sequence[Row]) -> dict[str, list[str]]:
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            notes.setdefault(row.note, []).append(row.name)
    return notes


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ratio(spread: Spread | None, digits: int = 2) -> str:
    if spread is None:
        return "-"
    return f"{spread.median:.{digits}f} ({spread.low:.{digits}f}-{spread.high:.{digits}f})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
