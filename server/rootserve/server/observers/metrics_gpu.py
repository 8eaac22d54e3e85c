"""GPU metrics by NVML: a collector where there is a GPU and nvidia-ml-py, and else nothing."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from rootserve.server.observers import metrics_catalog as catalog
from rootserve.server.observers.metrics_catalog import Metric
from rootserve.server.observers.metrics_state import gauge

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Figure:
    """A metric, its name in Triton, and how NVML tells it of a device."""

    metric: Metric
    alias: Metric
    read: Callable[[Any, Any], float]


_FIGURES = (
    _Figure(
        catalog.GPU_UTILIZATION,
        catalog.NV_UTILIZATION,
        lambda nvml, device: nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100,
    ),
    _Figure(
        catalog.GPU_MEMORY_USED,
        catalog.NV_MEMORY_USED,
        lambda nvml, device: nvml.nvmlDeviceGetMemoryInfo(device).used,
    ),
    _Figure(
        catalog.GPU_MEMORY_TOTAL,
        catalog.NV_MEMORY_TOTAL,
        lambda nvml, device: nvml.nvmlDeviceGetMemoryInfo(device).total,
    ),
    _Figure(
        catalog.GPU_POWER,
        catalog.NV_POWER,
        lambda nvml, device: nvml.nvmlDeviceGetPowerUsage(device) / 1000,
    ),
)


@dataclass(frozen=True, slots=True)
class _Gpu:
    device: Any
    labels: tuple[str, str, str]
    """Index, UUID, product name."""


class GpuCollector(Collector):
    """Asks NVML at each scrape. What a GPU cannot tell (some do not tell power) is left out.

    Raises:
        nvml.NVMLError: if there is no driver.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        self._gpus = [self._find(index) for index in range(nvml.nvmlDeviceGetCount())]

    def describe(self) -> Iterable[Family]:
        """Nothing; the registry would ask NVML for it."""
        return []

    def collect(self) -> Iterator[Family]:
        """The four figures of every GPU, each under both names."""
        for figure in _FIGURES:
            told = [
                (gpu.labels, value)
                for gpu in self._gpus
                if (value := self._read(figure, gpu)) is not None
            ]
            yield gauge(figure.metric, told)
            yield gauge(figure.alias, [((uuid,), value) for (_, uuid, _), value in told])

    def _find(self, index: int) -> _Gpu:
        device = self._nvml.nvmlDeviceGetHandleByIndex(index)
        uuid, name = self._nvml.nvmlDeviceGetUUID(device), self._nvml.nvmlDeviceGetName(device)
        return _Gpu(device, (str(index), str(uuid), str(name)))

    def _read(self, figure: _Figure, gpu: _Gpu) -> float | None:
        try:
            return figure.read(self._nvml, gpu.device)
        except self._nvml.NVMLError:
            return None


def gpu_collector() -> GpuCollector | None:
    """A collector of this machine's GPUs; None where there are none, or no nvidia-ml-py."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        if any(Path("/dev").glob("nvidia[0-9]*")):
            _log.info("there is a GPU, but its metrics need nvidia-ml-py: install rootserve[gpu]")
        return None
    try:
        collector = GpuCollector(nvml)
    except nvml.NVMLError as error:
        _log.debug("no GPU metrics: %s", error)
        return None
    return collector
