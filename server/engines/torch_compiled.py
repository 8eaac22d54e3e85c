"""Engine ``torch-compiled``: PyTorch's compiler, weights frozen into the kernels; CPU, needs a C++ compiler.

Compiled for one image, and a batch is computed image by image: a graph for any size is slower, one per size
would take the compiler minutes, and on a CPU a bigger batch buys nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._inductor import config

from server.engines.base import EngineError, Images, LoadSpec, Precision
from server.engines.torch_eager import build_module, use_device

_COMPILERS = ("g++", "clang++", "c++")


class CompiledEngine:
    """A graph that is compiled when it is first called."""

    name = "torch-compiled"

    def __init__(self, graph: Callable[[Tensor], Tensor], precision: Precision) -> None:
        self._graph = graph
        self.precision = precision

    def run(self, images: Images) -> NDArray[np.float32]:
        """See :class:`server.engines.base.Engine`."""
        floats = torch.from_numpy(images.astype(np.float32))
        # Not inference_mode, which frozen graphs do not know.
        reduced = self.precision == "bf16"
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=reduced):
            logits = torch.cat([self._graph(image).float() for image in torch.split(floats, 1)])
        result: NDArray[np.float32] = logits.numpy()
        return result


def load(spec: LoadSpec) -> CompiledEngine:
    """Compile ``spec``; the compiler keeps what it made in its own cache on disk.

    Raises:
        EngineError: if the device is not a CPU, or there is no C++ compiler.
        WeightsError: if the weights cannot be used.
    """
    if spec.device != "cpu":
        raise EngineError(f"engine torch-compiled runs on the cpu, not on {spec.device}; use torch")
    wanted = (os.environ["CXX"],) if os.environ.get("CXX") else _COMPILERS
    if not any(map(shutil.which, wanted)):
        raise EngineError(
            f"engine torch-compiled needs a C++ compiler, and {', '.join(wanted)} is not there; use openvino"
        )
    use_device(spec)
    graph: Callable[[Tensor], Tensor] = torch.compile(build_module(spec), dynamic=False)
    engine = CompiledEngine(graph, spec.precision)
    size = spec.image_size()
    with config.patch(freezing=True):
        engine.run(np.zeros((1, 3, size, size), np.uint8))
    return engine
