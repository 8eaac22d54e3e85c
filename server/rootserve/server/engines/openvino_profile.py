"""Times of layers on engine ``openvino``: the same compiled model, with its own counters turned on.

OpenVINO computes some layers in one step, a sum within the convolution before it for instance. The compiled
model tells which of the original nodes each of its steps stands for; layers' nodes have the layers' names.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta

import numpy as np
import openvino as ov
from typing_extensions import override

from rootmodels.layer import Layer
from rootserve.server.engines.base import Images, LoadSpec
from rootserve.server.engines.openvino_cpu import compile_options, network_graph
from rootserve.server.engines.profiling import PassTimes, Profiler

_ORIGINAL_NAMES = "originalLayersNames"
_MICROSECOND = timedelta(microseconds=1)


class OpenVinoProfiler(Profiler):
    """Reads the counters of OpenVINO's steps."""

    def __init__(self, compiled: ov.CompiledModel, layers: Iterable[Layer]) -> None:
        self._request = compiled.create_infer_request()
        self._layer_of, self.computed_in = _attribute(compiled.get_runtime_model(), list(layers))

    @override
    def run(self, images: Images) -> PassTimes:
        times = dict.fromkeys(self._layer_of.values(), 0)
        other_ns = total_ns = 0
        for image in images:
            began_ns = time.perf_counter_ns()
            self._request.infer([image[None].astype(np.float32)], share_inputs=True)
            total_ns += time.perf_counter_ns() - began_ns
            for step in self._request.get_profiling_info():
                step_ns = 1000 * (step.real_time // _MICROSECOND)
                if step.node_name in self._layer_of:
                    times[self._layer_of[step.node_name]] += step_ns
                else:
                    other_ns += step_ns
        return PassTimes(times, other_ns, total_ns)


def _attribute(runtime: ov.Model, layers: list[Layer]) -> tuple[dict[str, str], dict[str, str]]:
    """Step to the layer that it is counted for, and layer to the one in whose step it is.

    A step that stands for several layers is counted for the one with weights, or for the first.
    """
    order = {layer.name: position for position, layer in enumerate(layers)}
    with_weights = {layer.name for layer in layers if layer.has_weights}
    layer_of: dict[str, str] = {}
    computed_in: dict[str, str] = {}
    for step in runtime.get_ordered_ops():
        info = step.get_rt_info()
        originals = str(info[_ORIGINAL_NAMES].value) if _ORIGINAL_NAMES in info else ""
        # What is behind a "/" is a part of the layer.
        found = {name.partition("/")[0] for name in originals.split(",")} & order.keys()
        names = sorted(found, key=order.__getitem__)
        if names:
            home = next((name for name in names if name in with_weights), names[0])
            layer_of[step.get_friendly_name()] = home
            computed_in |= {name: home for name in names if name != home}
    homes = set(layer_of.values())
    return layer_of, {name: home for name, home in computed_in.items() if name not in homes}


def load(spec: LoadSpec) -> OpenVinoProfiler:
    """Compile ``spec`` as the engine does.

    Raises:
        EngineError, WeightsError: as :func:`rootserve.server.engines.openvino_cpu.load`.
    """
    core = ov.Core()
    options = compile_options(core, spec) | {"NUM_STREAMS": 1, "PERF_COUNT": True}
    compiled = core.compile_model(network_graph(spec), "CPU", options)
    return OpenVinoProfiler(compiled, spec.network().layers)
