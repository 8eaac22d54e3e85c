"""What the commands print: tables and lines that fit 80 columns, plain off a terminal."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rootserve.client.catalog import Model
from rootserve.client.stages import STAGES
from rootserve.client.units import count, duration, millions, percent
from rootserve.client.wire import Timeline

# Off a terminal there is no width to fit; one is fixed so that the output is always the same.
_PLAIN_WIDTH = 80

WEIGHTS_ID_DIGITS = 12
"""Of a SHA-256: as many as answers, metrics and log lines have."""

STATE_STYLES = {
    "ready": "green",
    "SERVING": "green",
    "loading": "yellow",
    "failed": "red",
    "NOT_SERVING": "red",
    "unloaded": "dim",
}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """The reader has gone: told to whoever chooses the exit code, where rich would end with 1."""
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """A console for standard output or standard error."""
    screen = _Console(stderr=stderr, highlight=False)
    if not screen.is_terminal:
        return _Console(stderr=stderr, highlight=False, width=_PLAIN_WIDTH)
    return screen


def figures_table(screen: Console, *columns: str, left: int = 1, **settings: Any) -> Table:
    """A table whose first `left` columns are words and whose others are numbers."""
    table = Table(
        box=box.SIMPLE_HEAD if screen.is_terminal else None,
        header_style="bold",
        title_justify="left",
        title_style="bold",
        pad_edge=False,
        **settings,
    )
    for n, column in enumerate(columns):
        words = n < left
        # Words give way on a narrow terminal, numbers never; a long name goes on below, and is never cut.
        table.add_column(
            column, justify="left" if words else "right", no_wrap=not words, overflow="fold"
        )
    return table


def separate(screen: Console) -> None:
    """An empty line, which a terminal's tables bring along."""
    if not screen.is_terminal:
        screen.print()


def state_text(state: str) -> str:
    """A state in its colour."""
    style = STATE_STYLES.get(state)
    return f"[{style}]{escape(state)}[/]" if style else escape(state)


def print_models(screen: Console, models: Sequence[Model]) -> None:
    """Cost, accuracy, state and largest batch of each model."""
    heads = ("model", "state", "engine", "batch", "params", "MACs", "top-1")
    table = figures_table(screen, *heads, left=3)
    for model in models:
        table.add_row(
            escape(model.name),
            state_text(model.state),
            escape(" ".join(filter(None, (model.engine, model.precision))) or "-"),
            "-" if model.batch_rows is None else count(model.batch_rows),
            "-" if model.members else count(model.params),
            "-" if model.members else millions(model.macs),
            percent(model.accuracy),
        )
    screen.print(table)


def print_weights(screen: Console, models: Sequence[Model]) -> None:
    """Which weights of each model are live; of those that are not loaded, which were found."""
    heads = ("model", "state", "version", "weights", "loads", "top-1")
    table = figures_table(screen, *heads, left=4)
    for model in models:
        table.add_row(
            escape(model.name),
            state_text(model.state),
            escape(model.version or "-"),
            "-" if model.members else (model.weights_sha256 or "untrained")[:WEIGHTS_ID_DIGITS],
            "-" if model.members else count(model.generation or 0),
            percent(model.accuracy),
        )
    screen.print(table)


def print_health(screen: Console, server: str, models: Sequence[Model]) -> None:
    """State of the server and of its models; those nobody asked for are only counted."""
    screen.print(f"server  {state_text(server)}")
    shown = [model for model in models if model.state != "unloaded" or model.state_reason]
    if shown:
        table = figures_table(screen, "model", "state", "reason", left=3)
        for model in shown:
            table.add_row(
                escape(model.name), state_text(model.state), escape(model.state_reason or "")
            )
        screen.print(table)
    if hidden := len(models) - len(shown):
        screen.print(f"{hidden} more known and not loaded", style="dim")


def print_top(
    screen: Console, name: str, ranking: Sequence[tuple[str, float]], width: int = 24
) -> None:
    """The likeliest classes of one picture, with a bar for each probability."""
    screen.print(escape(name), style="bold")
    longest = max((len(label) for label, _ in ranking), default=0)
    for label, probability in ranking:
        # A bar is for eyes; whoever reads a file has the number.
        bar = f"  [cyan]{'█' * round(probability * width)}[/]" if screen.is_terminal else ""
        screen.print(f"  {escape(label):<{longest}}  {probability:>7.2%}{bar}")


def _filled(parts: Sequence[str], width: int) -> str:
    """``parts`` with commas between, on lines of which none begins within a part."""
    lines = [""]
    for number, part in enumerate(parts, 1):
        piece = part if number == len(parts) else f"{part},"
        if lines[-1] and len(lines[-1]) + 1 + len(piece) > width:
            lines.append(piece)
        else:
            lines[-1] = f"{lines[-1]} {piece}".strip()
    return "\n".join(lines)


def print_timeline(screen: Console, timeline: Timeline, round_trip_s: float) -> None:
    """Where one request's time went."""
    told = {stage: getattr(timeline, f"{stage.name}_s", None) for stage in STAGES}
    stages = [
        f"{'of which ' if stage.within else ''}{stage.title} {duration(seconds)}"
        for stage, seconds in told.items()
        if seconds is not None and (seconds or stage.within is None)
    ]
    screen.print(
        f"round trip {duration(round_trip_s)}, in the server {duration(timeline.total_s)}\n"
        f"{_filled(stages, screen.width)}",
        style="dim",
    )
    weights = f", weights {escape(timeline.weights)}" if timeline.weights else ""
    screen.print(
        f"batch of {timeline.batch_rows} on {escape(timeline.worker)}, "
        f"{escape(timeline.engine)} {escape(timeline.precision)}{weights}",
        style="dim",
    )
