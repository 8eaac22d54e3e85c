"""A load run's progress on a terminal: rate, p99, failures and the time left, live."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from client.load.recording import Snapshot
from client.units import count, duration


class LoadProgress:
    """One line, redrawn at every snapshot and gone at the end. Draws only on a terminal.

    It redraws when told and never by itself: drawing takes time from the event loop that sends
    the requests, so it happens twice a second instead of rich's ten times.
    """

    def __init__(self, screen: Console, total_s: float) -> None:
        self._total_s = total_s
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(16),
            TextColumn("{task.fields[figures]}"),
            console=screen,
            auto_refresh=False,
            transient=True,
            disable=not screen.is_terminal,
        )
        self._task = self._progress.add_task("connecting", total=total_s, figures="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    @property
    def is_shown(self) -> bool:
        """Whether there is a terminal to draw on."""
        return not self._progress.disable

    def show(self, snapshot: Snapshot) -> None:
        """Redraw."""
        self._progress.update(
            self._task,
            completed=min(snapshot.elapsed_s, self._total_s),
            description="warming up" if snapshot.warming_up else "measuring ",
            figures=progress_text(snapshot, self._total_s),
        )
        self._progress.refresh()


def progress_text(snapshot: Snapshot, total_s: float) -> str:
    """The figures of the line, within 50 columns."""
    left_s = max(0.0, total_s - snapshot.elapsed_s)
    parts = [f"{snapshot.rows_per_s:,.0f} rows/s"]
    if not snapshot.warming_up:
        parts += [f"p99 {duration(snapshot.p99_s)}", f"{count(snapshot.failed)} failed"]
    return ", ".join([*parts, f"{left_s:.0f} s left"])
