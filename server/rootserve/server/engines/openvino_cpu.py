"""Engine ``openvino``: the network built from its layer table and compiled by OpenVINO for the CPU.

Built without torch, because a worker that does not import torch is there in a third of the time
(docs/adr/0007-openvino-from-the-layer-table.md).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset14 as ops
from typing_extensions import override

from rootmodels.layer import IMAGES
from rootmodels.parameters import FoldedNetwork
from rootmodels.processor import cpu_computes_bf16, int8_weight_bits
from rootmodels.variants import family_of
from rootserve.server.engines.base import EngineError, Images, LoadSpec, Precision, SideBySide
from rootserve.server.engines.openvino_convolution import Arithmetic, FloatArithmetic
from rootserve.server.engines.openvino_int8 import Int8Arithmetic
from rootserve.server.engines.openvino_layers import add_layer
from rootserve.server.engines.streams import best_streams

PRECISIONS: dict[Precision, str] = {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}
"""What it computes in, and what OpenVINO calls it."""

_TIMED_ROUNDS = 3
"""Of images, to compare numbers of streams."""


class _Room:
    """Memory for images and their logits, and for each of them a request of ``compiled`` on that memory."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self._compiled = compiled
        self.images = np.empty((0, *compiled.input(0).shape[1:]), np.float32)
        self.logits = np.empty((0, *compiled.output(0).shape[1:]), np.float32)
        self.requests: list[ov.InferRequest] = []

    def make(self, rows: int) -> None:
        """At least for so many images."""
        if rows > len(self.requests):
            self.images = np.empty((rows, *self.images.shape[1:]), np.float32)
            self.logits = np.empty((rows, *self.logits.shape[1:]), np.float32)
            self.requests = [self.request(self._compiled, row) for row in range(rows)]

    def request(self, compiled: ov.CompiledModel, row: int) -> ov.InferRequest:
        """One that computes the image at ``row`` with ``compiled``."""
        request = compiled.create_infer_request()
        one = slice(row, row + 1)
        request.set_input_tensor(ov.Tensor(self.images[one], shared_memory=True))
        request.set_output_tensor(ov.Tensor(self.logits[one], shared_memory=True))
        return request


class OpenVinoEngine(SideBySide):
    """A model compiled for one image: once for all threads together, and once for some threads per image.

    A batch is computed image by image: the maps of one image fit into a core's own cache, those of a batch
    do not, and threads that have an image each need not wait for one another after every layer. The second
    model has as many threads as the first, and begins images in the order in which they are given to it,
    whichever batch they are of.
    """

    name = "openvino"

    def __init__(
        self,
        together: ov.CompiledModel,
        apart: ov.CompiledModel | None,
        streams: int,
        precision: Precision,
    ) -> None:
        self.precision = precision
        self.streams = streams
        self._together = together
        self._apart = apart
        self._room = _Room(apart or together)
        self._alone: list[ov.InferRequest] = []
        self._rooms: list[_Room] = []

    @override
    def run(self, images: Images) -> NDArray[np.float32]:
        rows, room = len(images), self._room
        if rows > len(self._alone):
            room.make(rows)
            self._alone = room.requests
            if self._apart:
                self._alone = [room.request(self._together, row) for row in range(rows)]
        np.copyto(room.images[:rows], images)
        # An image that would have the last round for itself gets all threads instead.
        first_alone = rows - (rows % self.streams == 1) if self._apart else 0
        _compute(room.requests[:first_alone])
        for request in self._alone[first_alone:rows]:
            request.infer()
        return room.logits[:rows].copy()

    @override
    def run_beside(self, images: Images) -> NDArray[np.float32]:
        assert self._apart, "with one stream there is nothing beside"
        rows = len(images)
        try:
            room = self._rooms.pop()  # at once, whichever thread asks
        except IndexError:
            room = _Room(self._apart)
        room.make(rows)
        np.copyto(room.images[:rows], images)
        _compute(room.requests[:rows])
        logits: NDArray[np.float32] = room.logits[:rows].copy()
        self._rooms.append(room)
        return logits


def _compute(requests: Sequence[ov.InferRequest]) -> None:
    for request in requests:
        request.start_async()
    # The last one first: who waits is woken up once, not for every image.
    for request in reversed(requests):
        request.wait()


def load(spec: LoadSpec, weight_bits: int | None = None) -> OpenVinoEngine:
    """Build and compile ``spec``; in int8 with weights of ``weight_bits``, or as this processor needs them.

    Raises:
        EngineError: if the device is not a CPU, the CPU cannot compute in the precision asked for, or
            int8 is asked for and nobody measured the ranges of these weights.
        WeightsError: if the weights cannot be used.
    """
    if spec.device != "cpu":
        raise EngineError(f"engine openvino runs on the cpu, not on {spec.device}; use torch")
    core = ov.Core()
    options = compile_options(core, spec)
    model = network_graph(spec, weight_bits)
    together = core.compile_model(model, "CPU", options | {"NUM_STREAMS": 1})
    compiled: dict[int, ov.CompiledModel] = {1: together}

    def rate(streams: int) -> float:
        compiled[streams] = core.compile_model(model, "CPU", options | {"NUM_STREAMS": streams})
        return _images_per_second(compiled[streams], streams)

    streams = best_streams(spec.threads, rate)
    if streams not in compiled:
        compiled[streams] = core.compile_model(model, "CPU", options | {"NUM_STREAMS": streams})
    apart = compiled[streams] if streams > 1 else None
    return OpenVinoEngine(together, apart, streams, spec.precision)


def _images_per_second(compiled: ov.CompiledModel, streams: int) -> float:
    """Of so many images at a time, in the best of a few rounds."""
    room = _Room(compiled)
    room.make(2 * streams)
    room.images[:] = 0.0
    _compute(room.requests)  # the first time allocates
    times = []
    for _ in range(_TIMED_ROUNDS):
        began = time.perf_counter()
        _compute(room.requests)
        times.append(time.perf_counter() - began)
    return len(room.requests) / max(min(times), 1e-9)


def compile_options(core: ov.Core, spec: LoadSpec) -> dict[str, object]:
    """How OpenVINO is to compile ``spec``, but for the number of streams.

    Raises:
        EngineError: if the processor does not compute in that precision.
    """
    spec.check_processor()
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if PRECISIONS[spec.precision] not in capabilities:
        raise EngineError(
            f"this processor does not compute in {spec.precision}; use precision fp32"
        )
    # Without a hint, OpenVINO chooses by itself, and takes bf16 on processors that can. In int8, it is for
    # what lies between integer kernels. What OpenVINO says of the processor is blind to oneDNN's limit.
    is_exact = spec.precision == "fp32" or "BF16" not in capabilities or not cpu_computes_bf16()
    return {
        "INFERENCE_PRECISION_HINT": "f32" if is_exact else "bf16",
        "INFERENCE_NUM_THREADS": spec.threads,
        "ENABLE_CPU_PINNING": False,
    }


def network_graph(spec: LoadSpec, weight_bits: int | None = None) -> ov.Model:
    """The network of ``spec`` in its precision; ``weight_bits`` as for :func:`load`.

    Raises:
        EngineError: if int8 is asked for and nobody measured the ranges of these weights.
        WeightsError: if the weights cannot be used.
    """
    network = spec.network()
    arithmetic: Arithmetic = FloatArithmetic()
    if spec.precision == "int8":
        ranges = spec.calibration().ranges
        arithmetic = Int8Arithmetic(network.layers, ranges, weight_bits or int8_weight_bits())
    return build_network(network, arithmetic)


def build_network(network: FoldedNetwork, arithmetic: Arithmetic) -> ov.Model:
    """The network: one float32 image [1, 3, H, W] in 0..255 to logits [1, classes].

    By the names that :func:`add_layer` gives its nodes, a profile tells the time of a layer.
    """
    family, size = family_of(network.variant), network.image_size
    images = ops.parameter([1, 3, size, size], np.float32, "images")
    mean, std = (
        np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (family.mean, family.std)
    )
    normalised = ops.divide(ops.subtract(images, mean), std).output(0)
    outputs = {IMAGES: arithmetic.responses(IMAGES, normalised)}
    for layer in network.layers:
        inputs = [outputs[name] for name in layer.inputs]
        output = add_layer(layer, inputs, network.parameters.get(layer.name), arithmetic)
        outputs[layer.name] = arithmetic.responses(layer.name, output)
    return ov.Model([outputs[network.layers[-1].name]], [images], network.variant.name)
