"""How long something takes on processors that nobody else uses, on a machine that others use as well.

A neighbour makes a batch take many times as long by the clock on the wall. It hardly changes for how long
threads compute, and the kernel knows for how long they waited for a processor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_BLOCK_S = 0.004
"""What takes less is done several times: the clocks of threads that wait are no finer."""

_TASKS = Path("/proc/self/task")


class Spent(NamedTuple):
    """Seconds by the wall clock; in them, of all threads together, computing and waiting for a processor."""

    wall_s: float
    computing_s: float
    waiting_s: float


def undisturbed(spent: Spent, threads: int) -> float:
    """Seconds that it would have taken had none of the ``threads`` that compute waited for a processor.

    The larger of two that it cannot be less than: what they computed, shared evenly, and the time by the wall
    clock less all waiting, as if no two had waited at once. The latter is right where nobody waits.
    """
    wall_s, computing_s, waiting_s = spent
    return min(wall_s, max(computing_s / threads, wall_s - waiting_s, 0.0))


class Stopwatch:
    """Times what this process computes with ``threads``; by the wall clock alone if that is None.

    So is what runs on a GPU: it goes on while the thread that waits for it has no processor. The kernel's
    account of waiting is that of Linux with scheduler statistics, as distributions build it; where there is
    none, nothing is taken off. What the process computes otherwise counts, but as no more than it took.
    """

    def __init__(self, threads: int | None) -> None:
        self._threads = threads

    def seconds(self, run: Callable[[], object]) -> float:
        """What ``run`` takes undisturbed: in the mean, of a block of them."""
        runs = 0
        waited_ns = {} if self._threads is None else waiting_ns()
        computed_s, began_s = time.process_time(), time.perf_counter()
        while True:
            run()
            runs += 1
            wall_s = time.perf_counter() - began_s
            if wall_s >= _BLOCK_S:
                break
        if self._threads is None:
            return wall_s / runs
        computing_s = time.process_time() - computed_s
        waiting_s = sum(ns - waited_ns.get(task, 0) for task, ns in waiting_ns().items()) / 1e9
        return undisturbed(Spent(wall_s, computing_s, waiting_s), self._threads) / runs


def waiting_ns() -> Mapping[str, int]:
    """For how many nanoseconds each thread of this process has waited for a processor; empty if unknown."""
    found: dict[str, int] = {}
    with suppress(FileNotFoundError):
        for task in _TASKS.iterdir():
            with suppress(OSError):  # it has ended meanwhile
                found[task.name] = int((task / "schedstat").read_text().split()[1])
    return found
