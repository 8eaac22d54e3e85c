"""Which worker computes on which processors: pure, told the processors there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

OptimizeFor = Literal["adaptive", "latency", "throughput"]

MOST_LANES = 16
"""Batches that a worker computes side by side at most; its threads are shared by them, however many."""

MOST_WORKERS = 8
"""So many are chosen at most: each holds every model once more, and few are enough to fill a machine."""


class Placement(NamedTuple):
    """A worker's share of the machine; no ``processors`` lets the kernel move its threads.

    It computes ``lanes`` batches side by side at most.
    """

    threads: int
    processors: tuple[int, ...] = ()
    lanes: int = 1


def place(
    available: int,
    own: Sequence[int],
    optimize_for: OptimizeFor,
    workers: int = 0,
    threads: int = 0,
) -> list[Placement]:
    """Share ``available`` processors among CPU workers.

    For latency, one worker computes a batch on all of them. Adaptive is that as well, but the worker also
    takes batches side by side, an image and a thread each. For throughput, there is a worker for each
    processor, up to `MOST_WORKERS`: batches are computed side by side, and no thread waits for another
    at the end of a layer. There, workers stay on processors of their own, if there are any, so that none
    moves to where another computes.

    Unless ``workers`` or ``threads`` ask for more, there are no more threads than processors.

    Args:
        available: How many this process is given the time of; at least one.
        own: The numbers of those that are this service's alone, ``available`` of them or none. With a limit
            of time on a larger machine there are none: which of its processors are free is the kernel's to
            know, and all services that kept to the first ones would share those.
        optimize_for: What is to be good.
        workers: How many workers; 0 chooses.
        threads: Threads of each; 0 chooses.
    """
    if not workers:
        most = available // threads if threads else min(available, MOST_WORKERS)
        workers = max(1, most) if optimize_for == "throughput" else 1
    each = threads or max(1, available // workers)
    if optimize_for == "adaptive" and each > 1:
        return [Placement(each, lanes=min(each, MOST_LANES))] * workers
    if optimize_for != "throughput" or workers * each > len(own):
        return [Placement(each)] * workers
    return [
        Placement(each, tuple(own[index * each : (index + 1) * each])) for index in range(workers)
    ]
