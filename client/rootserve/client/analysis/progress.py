"""An analysis under way: images done, rate and the time left."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Self

import rich.progress
from rich.console import Console
from rich.markup import escape

from rootserve.client.analysis.service import Progress
from rootserve.client.errors import InputError
from rootserve.client.telling import telling
from rootserve.client.units import count


class ProgressBar:
    """On a terminal one line, redrawn at every message and gone at the end; off it a plain line now and then.

    Args:
        screen: Where.
        model: What is analysed.
        groups: Number of blocks that the result is to be shown with; must divide the channels of
            both layers of some pair, or the analysis is given up as soon as it has begun.
    """

    def __init__(self, screen: Console, model: str, groups: int | None = None) -> None:
        self._screen = screen
        self._model = model
        self._groups = groups
        self._around = ExitStack()
        self._show: Callable[[Progress], None] = lambda _: None

    def __enter__(self) -> Self:
        waiting = "waiting for its turn"
        if not self._screen.is_terminal:
            tell = self._around.enter_context(telling(self._screen, f"{self._model}: {waiting}"))
            self._show = lambda progress: tell(f"{self._model}: {progress_text(progress)}")
            return self
        bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(16),
            rich.progress.TextColumn("{task.fields[figures]}"),
            console=self._screen,
            auto_refresh=False,
            transient=True,
        )
        task = bar.add_task(escape(self._model), total=None, figures=waiting)

        def show(progress: Progress) -> None:
            bar.update(
                task,
                total=progress.images_total or None,
                completed=progress.images_done,
                figures=progress_text(progress),
            )
            bar.refresh()

        self._show = show
        self._around.enter_context(bar)
        return self

    def __exit__(self, *_: object) -> None:
        self._around.close()

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
        self._show(progress)


def progress_text(progress: Progress) -> str:
    """The figures of the line, within 50 columns."""
    done = count(progress.images_done)
    if progress.images_total:
        done += f" of {count(progress.images_total)}"
    parts = [f"{done} images", f"{progress.images_per_s:,.0f}/s"]
    if progress.remaining_s is not None:
        parts.append(f"{progress.remaining_s:,.0f} s left")
    return ", ".join(parts)
