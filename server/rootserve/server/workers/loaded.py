"""A model in a worker, ready to compute: run, and timed when it is loaded."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rootserve.server.core.batch_size import Latency, settle
from rootserve.server.engines.base import Engine, Images, SideBySide

_TURNS = 5
"""In each of which every batch size is timed once."""

_BLOCK_S = 0.004
"""A batch that takes less is computed several times in a turn: a moment in which another process has the
processor would count much in it, or not at all."""

_WARM_UP_S = 1.0
"""About how long all that may take: no larger batch is tried once a third of it is over, no turn begins when
all of it is; the first one does."""


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

    def warm_up(self, max_rows: int) -> Warm:
        """Run batch sizes that double, and the largest: first runs allocate. Gives how long they take.

        Those are left out that would take long: what they allocate is little beside what they compute.
        The sizes take turns, there and back: whatever drifts meanwhile favours none of them.
        """
        began, sizes = time.monotonic(), [1]
        self._run_once(1)
        while sizes[-1] < max_rows and time.monotonic() - began <= _WARM_UP_S / 3:
            sizes.append(min(2 * sizes[-1], max_rows))
            self._run_once(sizes[-1])
        turns: list[list[float]] = []
        speed_ups: list[float] = []
        if self.streams > 1:
            self.run(np.zeros((1, *self.image), np.uint8), beside=True)
        while not turns or (len(turns) < _TURNS and time.monotonic() - began < _WARM_UP_S):
            back = -1 if len(turns) % 2 else 1
            turns.append([self._seconds(rows) for rows in sizes[::back]][::back])
            if self.streams > 1:
                speed_ups.append(self._seconds(1, beside=True) / max(turns[-1][0], 1e-9))
        return Warm(settle(sizes, turns), median(speed_ups) if speed_ups else 1.0)

    def _seconds(self, rows: int, *, beside: bool = False) -> float:
        """What a batch of ``rows`` takes: in the mean, of a block of them."""
        images, runs = np.zeros((rows, *self.image), np.uint8), 0
        began = time.perf_counter()
        while True:
            self.run(images, beside=beside)
            runs += 1
            if (elapsed := time.perf_counter() - began) >= _BLOCK_S:
                return elapsed / runs

    def _run_once(self, rows: int) -> None:
        self.run(np.zeros((rows, *self.image), np.uint8))
