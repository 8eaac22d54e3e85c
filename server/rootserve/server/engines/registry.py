"""Which engines there are, in what they compute, and which ones are tried on a device."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from rootserve.server.engines.base import Loader, Precision
from rootserve.server.engines.profiling import ProfilerLoader

LOADERS = {
    "cuda-graphs": "rootserve.server.engines.torch_cuda",
    "cuda-kernels": "rootserve.server.engines.torch_kernels",
    "fake": "rootserve.server.engines.fake",
    "openvino": "rootserve.server.engines.openvino_cpu",
    "torch": "rootserve.server.engines.torch_eager",
}
"""Engine name to the module whose ``load`` makes one; imported when used."""

PROFILERS = {
    "openvino": "rootserve.server.engines.openvino_profile",
    "torch": "rootserve.server.engines.torch_profile",
}
"""The same for those engines that can tell how long each layer takes."""

PRECISIONS: Mapping[str, tuple[Precision, ...]] = {
    "cuda-graphs": ("fp32", "bf16", "fp16"),
    "cuda-kernels": ("bf16", "fp16"),
    "fake": ("fp32",),
    "openvino": ("fp32", "bf16", "int8"),
    "torch": ("fp32", "bf16"),
}
"""What each engine computes in, if the device can: no loader is asked for anything else."""


def preferred_engines(device: str) -> tuple[str, ...]:
    """What "auto" tries on ``device``; it takes the first engine that computes the model.

    On the CPU torch is slower at the same precision (docs/engines.md), and to try it would cost each worker
    its import, seconds and some 200 MB: it is for where OpenVINO does not work. On a GPU, cuda-kernels is the
    fastest (docs/gpu.md) and does without fp32; torch as it comes is for where nothing can be captured.
    """
    return ("openvino", "torch") if device == "cpu" else ("cuda-kernels", "cuda-graphs", "torch")


def get_loader(name: str) -> Loader:
    """The loader of the engine called ``name``, a key of :data:`LOADERS`."""
    loader: Loader = importlib.import_module(LOADERS[name]).load
    return loader


def get_profiler_loader(name: str) -> ProfilerLoader:
    """The loader of the profiler of the engine called ``name``, a key of :data:`PROFILERS`."""
    loader: ProfilerLoader = importlib.import_module(PROFILERS[name]).load
    return loader
