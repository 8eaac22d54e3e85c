"""An analysis under way, on a terminal: images done, rate and the time left."""

from collections.abc import Mapping, Sequence
from typing import Self

import rich.progress
from rich.console import Console
from rich.markup import escape

from rootserve.client.analysis.service import Progress
from rootserve.client.errors import InputError
from rootserve.client.units import count


class ProgressBar:
    """One line, redrawn at every message and gone at the end. Draws only on a terminal.

    Args:
        screen: Where.
        model: What is analysed.
        groups: Number of blocks that the result is to be shown with; must divide the channels of
            both layers of some pair, or the analysis is given up as soon as it has begun.
    """

    def __init__(self, screen: Console, model: str, groups: int | None = None) -> None:
        self._groups = groups
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(16),
            rich.progress.TextColumn("{task.fields[figures]}"),
            console=screen,
            auto_refresh=False,
            transient=True,
            disable=not screen.is_terminal,
        )
        self._task = self._bar.add_task(escape(model), total=None, figures="waiting for its turn")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def started(self, channels: Mapping[str, int], pairs: Sequence[tuple[str, str]]) -> None:
        """See `rootserve.client.analysis.service.Watcher`."""
        groups = self._groups
        if groups is None or any(
            channels[first] % groups == 0 == channels[second] % groups for first, second in pairs
        ):
            return
        sizes = ", ".join(
            f"{first}-{second} ({channels[first]} and {channels[second]} channels)"
            for first, second in pairs
        )
        raise InputError(f"--groups {groups}: expected a divisor of both layers of a pair; {sizes}")

    def progress(self, progress: Progress) -> None:
        """See `rootserve.client.analysis.service.Watcher`."""
        self._bar.update(
            self._task,
            total=progress.images_total or None,
            completed=progress.images_done,
            figures=progress_text(progress),
        )
        self._bar.refresh()


def progress_text(progress: Progress) -> str:
    """The figures of the line, within 50 columns."""
    done = count(progress.images_done)
    if progress.images_total:
        done += f" of {count(progress.images_total)}"
    parts = [f"{done} images", f"{progress.images_per_s:,.0f}/s"]
    if progress.remaining_s is not None:
        parts.append(f"{progress.remaining_s:,.0f} s left")
    return ", ".join(parts)
