"""Which engines there are, in what they compute, and which ones are tried on a device."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from server.engines.base import Loader, Precision
from server.engines.profiling import ProfilerLoader

LOADERS = {
    "fake": "server.engines.fake",
    "openvino": "server.engines.openvino_cpu",
    "torch": "server.engines.torch_eager",
}
"""Engine name to the module whose ``load`` makes one; imported when used."""

PROFILERS = {
    "openvino": "server.engines.openvino_profile",
    "torch": "server.engines.torch_profile",
}
"""The same for those engines that can tell how long each layer takes."""

PRECISIONS: Mapping[str, tuple[Precision, ...]] = {
    "fake": ("fp32",),
    "openvino": ("fp32", "bf16", "int8"),
    "torch": ("fp32", "bf16"),
}
"""What each engine computes in, if the device can."""


def preferred_engines(device: str) -> tuple[str, ...]:
    """What "auto" tries on ``device``; it takes the first engine that computes the model.

    In the order of docs/engines.md. On the CPU torch is no match there, and to try it at each start would
    cost its import: 2 s and 300 MB per worker.
    """
    return ("openvino", "torch") if device == "cpu" else ("torch",)


def get_loader(name: str) -> Loader:
    """The loader of the engine called ``name``, a key of :data:`LOADERS`."""
    loader: Loader = importlib.import_module(LOADERS[name]).load
    return loader


def get_profiler_loader(name: str) -> ProfilerLoader:
    """The loader of the profiler of the engine called ``name``, a key of :data:`PROFILERS`."""
    loader: ProfilerLoader = importlib.import_module(PROFILERS[name]).load
    return loader
