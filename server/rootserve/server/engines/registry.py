"""Which engines there are: one table, from which everything else that names engines follows."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from rootserve.server.engines.base import Loader, Precision
from rootserve.server.engines.profiling import ProfilerLoader


@dataclass(frozen=True, slots=True)
class EngineKind:
    """A kind of engine. Its modules are imported when they are used."""

    module: str
    """The one whose ``load`` makes such an engine."""
    precisions: tuple[Precision, ...]
    """What it computes in, if the device can: its loader is asked for nothing else."""
    devices: tuple[str, ...]
    """Kinds of devices on which it runs, of ``cpu`` and ``cuda``."""
    profiler: str | None = None
    """The module whose ``load`` makes a profiler, if it can tell how long each layer takes."""


_HERE = "rootserve.server.engines."

ENGINES: Mapping[str, EngineKind] = {
    "openvino": EngineKind(
        _HERE + "openvino_cpu", ("fp32", "bf16", "int8"), ("cpu",), _HERE + "openvino_profile"
    ),
    "cuda-kernels": EngineKind(_HERE + "torch_kernels", ("bf16", "fp16"), ("cuda",)),
    "cuda-graphs": EngineKind(_HERE + "torch_cuda", ("fp32", "bf16", "fp16"), ("cuda",)),
    "torch": EngineKind(
        _HERE + "torch_eager", ("fp32", "bf16"), ("cpu", "cuda"), _HERE + "torch_profile"
    ),
    "fake": EngineKind(_HERE + "fake", ("fp32",), ()),
}
"""Those that "auto" tries on a device stand in the order in which it does. "fake" computes nothing and is
tried on none.

On the CPU torch is slower at the same precision (docs/engines.md), and to try it would cost each worker its
import, seconds and some 200 MB: it is for where OpenVINO does not work. On a GPU, cuda-kernels is the fastest
(docs/gpu.md) and does without fp32; torch as it comes is for where nothing can be captured.
"""


def preferred_engines(device: str) -> tuple[str, ...]:
    """What "auto" tries on ``device``, such as ``cuda:0``; it takes the first that computes the model."""
    kind = device.partition(":")[0]
    return tuple(name for name, engine in ENGINES.items() if kind in engine.devices)


def get_loader(name: str) -> Loader:
    """The loader of the engine called ``name``, a key of :data:`ENGINES`."""
    loader: Loader = importlib.import_module(ENGINES[name].module).load
    return loader


def can_profile(name: str) -> bool:
    """Whether there is an engine called ``name`` that can tell how long each layer takes."""
    return name in ENGINES and ENGINES[name].profiler is not None


def get_profiler_loader(name: str) -> ProfilerLoader:
    """The loader of the profiler of an engine that :func:`can_profile`."""
    module = ENGINES[name].profiler
    assert module is not None, f"{name} has none"
    loader: ProfilerLoader = importlib.import_module(module).load
    return loader
