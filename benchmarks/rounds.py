"""Measurements that take turns, so that a machine whose speed drifts is the same machine for all of them."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from importlib import metadata
from typing import TypeVar

import numpy as np

from rootmodels.processor import cpu_name

Key = TypeVar("Key", bound=Hashable)
Rates = dict[Key, list[float]]


def take_turns(
    runs: Mapping[Key, Callable[[], object]],
    rows: Mapping[Key, int],
    rounds: int,
    seconds: float,
) -> dict[Key, list[float]]:
    """Rows per second of each of ``runs`` in each round; every second round goes backwards."""
    for run in runs.values():
        run()
    rates: dict[Key, list[float]] = {key: [] for key in runs}
    for number in range(rounds):
        for key in reversed(runs) if number % 2 else runs:
            rates[key].append(rows[key] * _calls_per_second(runs[key], seconds))
    return rates


def _calls_per_second(run: Callable[[], object], seconds: float) -> float:
    run()  # whoever ran before had the caches
    calls, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        run()
        calls += 1
    return calls / elapsed


def spread(values: list[float], digits: int = 0) -> str:
    """Median and quartiles: ``1,459 (1,440-1,470)``."""
    low, high = np.quantile(values, [0.25, 0.75])
    return f"{statistics.median(values):,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def ratios(above: list[float], below: list[float]) -> list[float]:
    """Of two that took turns, round by round."""
    return [one / other for one, other in zip(above, below, strict=True)]


def machine(device: str, threads: int) -> str:
    """What the figures were measured on, in a line."""
    found = {name: _version(name) for name in ("torch", "openvino")}
    libraries = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    where = f"{cpu_name()}, {threads} threads" if device == "cpu" else gpu_name(device)
    return f"{where}, Python {platform.python_version()}, {libraries}"


def gpu_name(device: str) -> str:
    """The device's own name, and ours."""
    import torch  # noqa: PLC0415 - seconds, for those who measure a GPU

    return f"{torch.cuda.get_device_name(device)} ({device})"


def _version(package: str) -> str | None:
    """None where it is not installed: a GPU machine has no use for OpenVINO."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
