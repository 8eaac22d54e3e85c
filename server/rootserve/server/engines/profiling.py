"""How long each layer takes on an engine, as the engine itself tells it: the contract, and the medians.

Not every engine can tell. :data:`rootserve.server.engines.registry.ENGINES` says which can.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rootserve.server.engines.base import Images, LoadSpec

WARM_UP_RUNS = 2
RUNS = 31
LONGEST_S = 5.0
"""After so long no further run begins, but for the first few."""
_LEAST_RUNS = 5


@dataclass(frozen=True, slots=True)
class PassTimes:
    """Nanoseconds of one forward pass.

    ``layers`` has those of the layers that were steps of their own, ``other_ns`` those of steps that belong
    to no layer. ``total_ns`` is what the caller waited.
    """

    layers: Mapping[str, int]
    other_ns: int
    total_ns: int


class Profiler(Protocol):
    """A model loaded as the engine would, that takes times as it runs.

    ``computed_in`` names, for each layer that was made a part of another one's step, that other one.
    """

    computed_in: Mapping[str, str]

    def run(self, images: Images) -> PassTimes:
        """One forward pass."""
        ...


ProfilerLoader = Callable[[LoadSpec], Profiler]


@dataclass(frozen=True, slots=True)
class Quartiles:
    """Of the times of all runs, in nanoseconds."""

    lower: int
    median: int
    upper: int

    @classmethod
    def of(cls, values: Sequence[int]) -> Quartiles:
        """Those of ``values``."""
        lower, median, upper = np.percentile(values, (25, 50, 75))
        return cls(round(lower), round(median), round(upper))


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """What :func:`measure` found out; layers that are in ``computed_in`` are not in ``layers``."""

    layers: Mapping[str, Quartiles]
    computed_in: Mapping[str, str]
    other: Quartiles
    total: Quartiles
    runs: int


def measure(profiler: Profiler, images: Images) -> LayerTimes:
    """Medians and quartiles of some forward passes, each layer for itself."""
    for _ in range(WARM_UP_RUNS):
        profiler.run(images)
    passes: list[PassTimes] = []
    began_s = time.monotonic()
    while len(passes) < RUNS:
        passes.append(profiler.run(images))
        if len(passes) >= _LEAST_RUNS and time.monotonic() - began_s > LONGEST_S:
            break
    return LayerTimes(
        layers={
            name: Quartiles.of([one.layers[name] for one in passes]) for name in passes[0].layers
        },
        computed_in=dict(profiler.computed_in),
        other=Quartiles.of([one.other_ns for one in passes]),
        total=Quartiles.of([one.total_ns for one in passes]),
        runs=len(passes),
    )
