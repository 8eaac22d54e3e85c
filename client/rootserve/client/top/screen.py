"""The view as a person reads it: a line about the server, its models, its workers; 80 columns."""

import time
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rootserve.client.top.rates import ModelRow, View, WorkerRow
from rootserve.client.units import count, duration

# From this share of the time on, a worker is drawn as busy.
_BUSY = 0.9


def render(
    server: str, view: View | None, trouble: str = "", now_s: float | None = None
) -> RenderableType:
    """Everything; with `trouble`, what cannot be reached, the last view is dimmed.

    `now_s` is Unix time; the present one if None.
    """
    parts: list[RenderableType] = [_headline(server, view, time.time() if now_s is None else now_s)]
    if trouble:
        parts.append(Text(f"{trouble}; trying again", style="red"))
    if view is not None:
        style = "dim" if trouble else ""
        parts += ["", _models(view.models, style), "", _workers(view.workers, style), ""]
        waiting = ", ".join(row.model for row in view.models if not row.ready)
        if waiting:
            parts.append(Text(f"not ready: {waiting}", style="red"))
        if view.interval_s is not None and not trouble:
            words = (
                f"over {view.interval_s:.1f} s; p50 and p99 are estimates from histogram buckets"
            )
            parts.append(Text(words, style="dim"))
    return Group(*parts)


def _headline(server: str, view: View | None, now_s: float) -> Text:
    line = Text.assemble(("rootserve ", "bold"), (server, "bold"))
    if view is not None:
        state = ("serving", "green") if view.serving else ("not serving", "red")
        up = _age(max(0.0, now_s - view.started_s))
        line += Text.assemble("  ", state, f"  version {view.version}, up {up}")
    return line


def _models(rows: Sequence[ModelRow], style: str) -> Table:
    numbers = ("req/s", "rows/s", "p50", "p99", "batch", "queue", "work", "ref/s")
    table = figures(style, ("model",), numbers)
    for row in rows:
        table.add_row(
            escape(row.model) if row.ready else f"[red]{escape(row.model)}[/]",
            rate_text(row.requests_per_s),
            rate_text(row.rows_per_s),
            duration(row.p50_s),
            duration(row.p99_s),
            "-" if row.batch_rows is None else f"{row.batch_rows:.1f}",
            count(row.queued_rows),
            count(row.in_flight_rows),
            rate_text(row.refused_per_s, bad=True),
        )
    return table


def _workers(rows: Sequence[WorkerRow], style: str) -> Table:
    table = figures(style, ("worker", "device", "state"), ("busy", "restarts", "memory"))
    for row in rows:
        table.add_row(
            escape(row.worker),
            escape(row.device),
            "[green]up[/]" if row.up else "[red]down[/]",
            share_text(row.busy),
            f"[yellow]{row.restarts:,}[/]" if row.restarts else "0",
            "-" if row.memory_bytes is None else f"{row.memory_bytes / 2**20:,.0f} MiB",
        )
    return table


def figures(style: str, words: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    """An empty table with columns of words, then of numbers."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.row_styles = [style]
    for name in words:
        table.add_column(name)
    for name in numbers:
        # Words give way on a narrow terminal, numbers never.
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    return table


def rate_text(value: float | None, *, bad: bool = False) -> str:
    """Events per second; in red if they are ``bad`` and there are any."""
    if value is None:
        return "-"
    text = f"{value:,.0f}" if value >= 99.5 or value == 0 else f"{value:.1f}"
    return f"[red]{text}[/]" if bad and value else text


def share_text(value: float | None) -> str:
    """A share of time, in colour if nearly all of it."""
    if value is None:
        return "-"
    text = f"{value:.0%}"
    return f"[yellow]{text}[/]" if value >= _BUSY else text


def _age(seconds: float) -> str:
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 1:
        return f"{seconds:.0f} s"
    if hours < 1:
        return f"{minutes:.0f} min"
    return f"{hours:.1f} h" if days < 2 else f"{days:.0f} days"
