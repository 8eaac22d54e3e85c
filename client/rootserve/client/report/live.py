"""The live view of a load run: rate, times and outcomes, now and of the whole run.

It redraws when told and never by itself: drawing takes time from the event loop that sends the
requests, so it happens twice a second instead of rich's ten times. Off a terminal it writes a plain
line every ten seconds.
"""

from collections import deque
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rootserve.client.load.report import LoadResult
from rootserve.client.load.snapshot import Snapshot
from rootserve.client.units import count, duration

_FIRST_LINE_S, _LINE_EVERY_S = 5.0, 10.0
_RECENT_S = 1.0
_BAR_WIDTH = 30
_HEADS = ("rows/s", "p50", "p99", "under way", "late")


class LiveView:
    """Draws snapshots of a run, and is gone at its end.

        with LiveView(screen, 12.0, "nin-root-4, 200 requests/s") as live:
            live.show(snapshot)

    Args:
        screen: Where to draw.
        plan_s: How long the run is to take at most.
        title: What it is, in a few words.
    """

    def __init__(self, screen: Console, plan_s: float, title: str) -> None:
        self._screen = screen
        self._live = Live(console=screen, auto_refresh=False, transient=True)
        self._title = title
        self._plan_s = plan_s
        self._recent: deque[Snapshot] = deque()
        self._next_line_s = _FIRST_LINE_S

    def __enter__(self) -> Self:
        if self._screen.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Redraw, or write the line if it is time."""
        while self._recent and self._recent[0].elapsed_s < snapshot.elapsed_s - _RECENT_S - 0.1:
            self._recent.popleft()
        before = self._recent[0] if self._recent else None
        self._recent.append(snapshot)
        if self._screen.is_terminal:
            self._live.update(self._picture(snapshot, before), refresh=True)
        elif snapshot.elapsed_s >= self._next_line_s:
            self._next_line_s += _LINE_EVERY_S
            self._screen.print(self._line(snapshot), markup=False, soft_wrap=True)

    def _picture(self, now: Snapshot, before: Snapshot | None) -> Group:
        phase = "warming up" if now.warming_up else "measuring"
        left_s = max(0.0, self._plan_s - now.elapsed_s)
        head = Table.grid(padding=(0, 2, 0, 0))
        head.add_row(
            Text(phase, style="yellow" if now.warming_up else "green"),
            ProgressBar(self._plan_s, min(now.elapsed_s, self._plan_s), width=_BAR_WIDTH),
            f"{now.elapsed_s:.0f} of {self._plan_s:.0f} s, {left_s:.0f} s left",
        )
        figures = Table.grid(padding=(0, 3, 0, 0))
        figures.add_column(min_width=9)
        for _ in _HEADS:
            figures.add_column(justify="right", min_width=9)
        figures.add_row("", *(Text(name, style="dim") for name in _HEADS))
        figures.add_row(Text("just now", style="dim"), *self._just_now(now, before))
        figures.add_row(
            Text("so far", style="dim"),
            f"{now.rows_per_s:,.0f}",
            *([""] * 2 if now.warming_up else [duration(now.p50_s), duration(now.p99_s)]),
            "",
            "" if now.warming_up else count(now.late),
        )
        return Group(Text(self._title, style="bold"), head, figures, self._outcomes(now))

    def _just_now(self, now: Snapshot, before: Snapshot | None) -> list[str]:
        rate = "-"
        if before and now.elapsed_s > before.elapsed_s:
            rows = now.answered_rows - before.answered_rows
            rate = f"{rows / (now.elapsed_s - before.elapsed_s):,.0f}"
        return [
            rate,
            duration(now.recent_p50_s),
            duration(now.recent_p99_s),
            count(now.in_flight),
            "",
        ]

    def _outcomes(self, now: Snapshot) -> Text:
        parts = [f"OK {count(now.requests - now.failed)}"]
        parts += [
            f"[red]{escape(code)} {count(number)}[/]" for code, number in sorted(now.errors.items())
        ]
        return Text.from_markup("   ".join(parts))

    def _line(self, now: Snapshot) -> str:
        parts = [f"{now.elapsed_s:.0f} of {self._plan_s:.0f} s", f"{now.rows_per_s:,.0f} rows/s"]
        if now.warming_up:
            parts.append("warming up")
        else:
            parts += [
                f"p50 {duration(now.p50_s)}, p99 {duration(now.p99_s)}",
                f"{count(now.failed)} of {count(now.requests)} failed",
            ]
        return f"{self._title}: {', '.join(parts)}"


def run_line(title: str, result: LoadResult) -> str:
    """What a run that is over has found, as a plain line."""
    return (
        f"{title}: {result.throughput_rows_per_s:,.0f} rows/s, p99 of all "
        f"{duration(result.p99_of_all_s)}, {count(result.failed)} of {count(result.requests)} failed"
    )
