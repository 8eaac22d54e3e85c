"""A model in a worker, ready to compute: run, and timed when it is loaded."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rootserve.server.core.batch_size import Latency, is_sure, may_grow, settle
from rootserve.server.engines.base import Engine, Images, SideBySide
from rootserve.server.workers.stopwatch import Stopwatch

_TURNS = 5
"""At most, in each of which every batch size is timed once."""

_WARM_UP_S = 1.0
"""About how long they may take undisturbed; the first one is always whole."""

_LONGEST_S = 3.0
"""Nothing is begun once it has all taken so long, with others on the machine."""


class Warm(NamedTuple):
    """How long batches alone take, and how many times as long an image with a stream's threads takes."""

    latency: Latency
    speed_up: float


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to compute: ``image`` is C, H, W, ``short_side`` that of a picture before it is one."""

    engine: Engine
    image: tuple[int, int, int]
    classes: int
    short_side: int

    @property
    def streams(self) -> int:
        """Images that batches side by side have computed at a time; 1 where they must not be."""
        return self.engine.streams if isinstance(self.engine, SideBySide) else 1

    def run(self, images: Images, *, beside: bool = False) -> NDArray[np.float32]:
        """Logits [rows, classes]; ``beside``: while other threads compute others so.

        Raises:
            ValueError: if the engine gave something else.
        """
        if beside and isinstance(self.engine, SideBySide):
            logits = self.engine.run_beside(images)
        else:
            logits = self.engine.run(images)
        expected = (len(images), self.classes)
        if logits.shape != expected:
            raise ValueError(f"the engine gave logits {logits.shape}, expected {expected}")
        return logits

    def warm_up(self, max_rows: int, threads: int | None = None) -> Warm:
        """Run batch sizes that double, and the largest: first runs allocate. Gives how long they take.

        ``threads`` is with how many of them it computes; None where a GPU does. Sizes are left out that are
        too large to be chosen: what they allocate is little beside what they compute. The sizes take turns,
        there and back, until these agree: whatever drifts meanwhile favours none of them.
        """
        began, stopwatch = time.monotonic(), Stopwatch(threads)
        sizes, first, speed_ups = [1], [], list[float]()
        while True:
            self._run(sizes[-1])
            first.append(stopwatch.seconds(partial(self._run, sizes[-1])))
            tried = tuple(zip(sizes, first, strict=True))
            over = time.monotonic() - began >= _LONGEST_S
            if sizes[-1] >= max_rows or over or not may_grow(tried):
                break
            sizes.append(min(2 * sizes[-1], max_rows))
        if self.streams > 1:
            self._run(1, beside=True)
        turns, spent_s = [first], sum(first)
        while True:
            if self.streams > 1:
                beside_s = stopwatch.seconds(partial(self._run, 1, beside=True))
                speed_ups.append(beside_s / max(turns[-1][0], 1e-9))
            if len(turns) == _TURNS or is_sure(sizes, turns):
                break
            if spent_s >= _WARM_UP_S or time.monotonic() - began >= _LONGEST_S:
                break
            back = -1 if len(turns) % 2 else 1
            turn = [stopwatch.seconds(partial(self._run, rows)) for rows in sizes[::back]]
            turns.append(turn[::back])
            spent_s += sum(turn)
        return Warm(settle(sizes, turns), median(speed_ups) if speed_ups else 1.0)

    def _run(self, rows: int, *, beside: bool = False) -> None:
        self.run(np.zeros((rows, *self.image), np.uint8), beside=beside)
