"""Which engines there are, and which one is the default on a device."""

from __future__ import annotations

import importlib

from server.engines.base import Loader
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


def default_engine(device: str) -> str:
    """The fastest engine on ``device`` that computes in fp32 (benchmarks/engines.py)."""
    return "openvino" if device == "cpu" else "torch"


def get_loader(name: str) -> Loader:
    """The loader of the engine called ``name``, a key of :data:`LOADERS`."""
    loader: Loader = importlib.import_module(LOADERS[name]).load
    return loader


def get_profiler_loader(name: str) -> ProfilerLoader:
    """The loader of the profiler of the engine called ``name``, a key of :data:`PROFILERS`."""
    loader: ProfilerLoader = importlib.import_module(PROFILERS[name]).load
    return loader
