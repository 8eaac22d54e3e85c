"""Engine ``cuda-kernels``: ``cuda-graphs`` whose layers are each computed by the fastest of several ways.

The ways are cuDNN's convolution with and without bias and ReLU in its own kernel, the same with groups filled
up to a dense convolution, and the kernels of :mod:`rootserve.server.engines.triton_kernels`. Each is checked
against the first and timed, at every size of batch before it is captured; one that fails is left out with a
line in the log.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import ModuleType

import torch
from torch import Tensor, nn
from typing_extensions import override

from rootmodels.layer import IMAGES, Layer
from rootmodels.network import Network
from rootmodels.torch_layers import activate
from rootserve.server.engines.base import Images, LoadSpec
from rootserve.server.engines.torch_cuda import (
    CudaGraphsEngine,
    ReducedNetwork,
    load_module,
    timing_events,
)

_LOG = logging.getLogger(__name__)
_ALLOWED_ERROR = 0.02
"""Of the largest response, between two ways in bf16."""
_TIMED = 10
_WIDEST_PAIR = 256
_CUDNN = "cudnn"

Way = Callable[[Tensor], Tensor]


class TunedNetwork(ReducedNetwork):
    """Chooses, for each layer and shape that comes, how it is computed, and remembers it."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._chosen: dict[tuple[str, torch.Size], tuple[str, Way]] = {}
        self.times_us: dict[tuple[str, int], dict[str, float]] = {}
        """By the names of layers and the rows: microseconds of each way."""
        self.kernels = _kernels()

    @override
    def forward(self, images: Tensor) -> Tensor:
        values = {IMAGES: self.normalise(images)}
        done: set[str] = set()
        for layer, after in zip(self.layers, [*self.layers[1:], None], strict=True):
            if layer.name in done:
                continue
            ended = [layer]
            if after is not None and _is_pair(layer, after):
                x = values[layer.inputs[0]]
                values[after.name] = self._way(f"{layer.name}+{after.name}", x, (layer, after))(x)
                done.add(after.name)
                ended.append(after)
            else:
                values[layer.name] = self._single(layer, values)
            for one in ended:
                for name in self._last_uses[one.name]:
                    values.pop(name, None)  # what is between a pair was never there
        return values[self.layers[-1].name]

    def _single(self, layer: Layer, values: dict[str, Tensor]) -> Tensor:
        if layer.kind == "conv":
            x = values[layer.inputs[0]]
            return self._way(layer.name, x, (layer,))(x)
        x = self.linear(layer, values)
        return activate(layer, x)

    def _way(self, name: str, x: Tensor, layers: tuple[Layer, ...]) -> Way:
        key = (name, x.shape)
        if key not in self._chosen:
            if len(layers) == 2:
                first, second = layers
                one = self._way(first.name, x, (first,))
                between = one(x)
                other = self._way(second.name, between, (second,))
                ways = {"apart": lambda given: other(one(given))} | dict(self._pair_ways(*layers))
            else:
                ways = dict(self._ways(layers[0]))
            self._chosen[key] = self._fastest(name, x, ways)
        return self._chosen[key][1]

    def _fastest(self, name: str, x: Tensor, ways: dict[str, Way]) -> tuple[str, Way]:
        expected = next(iter(ways.values()))(x)
        largest = expected.float().abs().max()
        times: dict[str, float] = {}
        for label, way in ways.items():
            try:
                error = (way(x).float() - expected.float()).abs().max() / largest
                if not error <= _ALLOWED_ERROR:
                    _LOG.warning("%s: %s is off by %.2g, it is left out", name, label, float(error))
                    continue
                times[label] = _seconds(way, x) * 1e6
            except Exception as error:  # noqa: BLE001 - another way serves
                told = " ".join(str(error).split())[:300]
                _LOG.warning("%s: %s does not work here: %s", name, label, told)
        self.times_us[name, len(x)] = {label: round(took, 1) for label, took in times.items()}
        best = min(times, key=times.__getitem__, default=next(iter(ways)))
        return best, ways[best]

    def _ways(self, layer: Layer) -> Iterator[tuple[str, Way]]:
        conv, norm = self._parts[layer.name]
        assert isinstance(conv, nn.Conv2d)
        weight, bias = conv.weight.detach(), conv.bias
        assert bias is not None
        bias = bias.detach()

        def plain(x: Tensor) -> Tensor:
            return activate(layer, norm(conv(x)))

        def fused(weight: Tensor, groups: int) -> Way:
            steps, padding, spread = layer.strides, layer.pads[:2], layer.dilations
            return lambda x: torch.cudnn_convolution_relu(
                x, weight, bias, steps, padding, spread, groups
            )

        yield _CUDNN, plain
        if not _is_square(layer):
            return
        if layer.relu:
            yield "cudnn fused", fused(weight, layer.groups)
        kernels = self.kernels
        if kernels is None or weight.dtype == torch.float32:
            return
        if layer.groups > 1 and layer.relu:
            dense = kernels.merge_groups(weight, layer.groups, 1)
            yield "cudnn dense", fused(dense.contiguous(memory_format=torch.channels_last), 1)
        shape = (layer.kernel, layer.stride, layer.padding, layer.relu)
        wide = bias.float()
        for merged in merges(layer.groups, layer.in_channels):
            packed = kernels.pack(
                kernels.merge_groups(weight, layer.groups, merged).contiguous(), merged
            )
            for block in blocks(layer.in_channels // merged, layer.out_channels // merged):
                way = functools.partial(
                    kernels.conv, packed=packed, bias=wide, shape=shape, block=block
                )
                yield f"triton g{merged} {'x'.join(map(str, block))}", way

    def _pair_ways(self, first: Layer, second: Layer) -> Iterator[tuple[str, Way]]:
        if self.kernels is None or next(self.parameters()).dtype == torch.float32:
            return
        kernels, weights = self.kernels, []
        for layer in (first, second):
            conv = self._parts[layer.name][0]
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None
            weight = conv.weight.detach()[:, :, 0, 0].t().contiguous()
            weights.append((weight, conv.bias.detach().float()))
        for block in ((128, 64, 64, 8, 3), (64, 64, 64, 4, 3)):
            way = functools.partial(kernels.pair, first=weights[0], second=weights[1], block=block)
            yield f"triton pair {'x'.join(map(str, block))}", way


def merges(groups: int, channels: int) -> list[int]:
    """Into how many groups ``groups`` may be merged: those of 24 to 64 inputs, or as they are if wider."""
    if channels // groups >= 48:
        return [groups]
    able = [number for number in range(1, groups + 1) if groups % number == 0]
    return [number for number in able if 16 <= channels // number <= 64][:3] or [able[-1]]


def blocks(taken: int, given: int) -> list[tuple[int, ...]]:
    """Pixels, outputs and inputs of a step, warps and stages: what may be fast for a group of this size."""
    inputs = next((size for size in (64, 32) if taken % size == 0), 0)
    inputs = inputs or min(64, max(16, 1 << (taken - 1).bit_length()))
    outputs = min(128, max(16, 1 << (given - 1).bit_length()))
    outputs = 64 if given % 128 and given % 64 == 0 else outputs
    return [(128, outputs, inputs, 4 if outputs <= 64 else 8, 4), (64, outputs, inputs, 4, 4)]


def _is_square(layer: Layer) -> bool:
    """Whether the fused kernels compute it: alike in height and width, and a ReLU or nothing after it."""
    alike = (layer.kernel, layer.stride, layer.padding)
    simple = all(isinstance(number, int) for number in alike) and layer.dilation == 1
    return simple and layer.activation in ("none", "relu")


def _is_pair(layer: Layer, after: Layer) -> bool:
    return (
        after.inputs == (layer.name,)
        and all(
            (one.kind, one.kernel, one.stride, one.padding, one.groups, one.relu)
            == ("conv", 1, 1, 0, 1, True)
            for one in (layer, after)
        )
        and after.out_channels <= _WIDEST_PAIR
    )


def _seconds(way: Way, x: Tensor) -> float:
    """Of one call on the device: a launch from Python takes longer than many a layer, a graph's does not."""
    graph = torch.cuda.CUDAGraph()
    graph.capture_begin(capture_error_mode="thread_local")
    try:
        for _ in range(_TIMED):
            kept = way(x)
    except BaseException:
        with suppress(RuntimeError):
            graph.capture_end()
        raise
    graph.capture_end()
    graph.replay()
    took = []
    for _ in range(3):
        began, ended = timing_events()
        began.record()
        graph.replay()
        ended.record()
        ended.synchronize()
        took.append(float(began.elapsed_time(ended)) / 1e3 / _TIMED)
    del kept
    return min(took)


def _kernels() -> ModuleType | None:
    try:
        from rootserve.server.engines import triton_kernels  # noqa: PLC0415 - where there is no Triton
    except ImportError as error:
        _LOG.warning("no kernels of our own: %s", error)
        return None
    return triton_kernels


class KernelsEngine(CudaGraphsEngine):
    """Graphs of a network whose layers are tuned."""

    name = "cuda-kernels"

    def choices(self, images: Images) -> dict[str, dict[str, float]]:
        """Microseconds of each way of each layer, for batches like ``images``."""
        assert isinstance(self._module, TunedNetwork)
        found = self._module.times_us
        return {name: times for (name, rows), times in found.items() if rows == len(images)}


def load(spec: LoadSpec) -> KernelsEngine:
    """Load ``spec`` on its GPU, as :func:`rootserve.server.engines.torch_cuda.load` does."""
    module = load_module(spec, TunedNetwork)
    assert isinstance(module, Network)
    return KernelsEngine(module, spec.precision)
