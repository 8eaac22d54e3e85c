"""Times of layers on engine ``torch``: the same module, run layer by layer, each one waited for."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from typing_extensions import override

from rootmodels.layer import IMAGES
from rootmodels.torch_layers import activate
from rootserve.server.engines.base import Images, LoadSpec
from rootserve.server.engines.profiling import PassTimes, Profiler
from rootserve.server.engines.torch_eager import TorchEngine
from rootserve.server.engines.torch_eager import load as load_engine


class TorchProfiler(Profiler):
    """Stops the time between layers.

    On a GPU, waiting costs some microseconds a layer.
    """

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine
        self.computed_in: dict[str, str] = {}

    @override
    def run(self, images: Images) -> PassTimes:
        module = self._engine.module
        wait: Callable[[], None] = (
            torch.cuda.synchronize if self._engine.device.type == "cuda" else lambda: None
        )
        times: dict[str, int] = {}
        with self._engine.computing():
            began_ns = time.perf_counter_ns()
            values = {IMAGES: module.normalise(torch.from_numpy(images).to(self._engine.device))}
            wait()
            other_ns = time.perf_counter_ns() - began_ns
            for layer in module.layers:
                layer_ns = time.perf_counter_ns()
                x = module.linear(layer, values)
                values[layer.name] = activate(layer, x)
                wait()
                times[layer.name] = time.perf_counter_ns() - layer_ns
                module.forget(layer, values)
            return PassTimes(times, other_ns, time.perf_counter_ns() - began_ns)


def load(spec: LoadSpec) -> TorchProfiler:
    """Load ``spec`` as the engine does.

    Raises:
        EngineError, WeightsError: as :func:`rootserve.server.engines.torch_eager.load`.
    """
    return TorchProfiler(load_engine(spec))
