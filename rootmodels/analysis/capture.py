"""From images to sums: runs a network and sums its layers' responses, a few images at a time.

Products are formed of responses from which a value near their mean was subtracted, over a few images at a
time, and added up in float64. The products of large maps are in float32: that keeps the error of a
covariance at a few 1e-7 of its norm and costs less than the forward pass, and float64 would cost twice as
much. Small maps give fewer products, which cost little and average out less: theirs are in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rootmodels.analysis.layers import Stage
from rootmodels.analysis.moments import Array, Moments
from rootmodels.analysis.responses import responses
from rootmodels.analysis.sums import Pair, Plan, Sums
from rootmodels.network import Network

CPU_STEP_IMAGES = 8
"""Images whose maps are held at a time; their largest map should fit into the processor's cache."""

GPU_STEP_IMAGES = 64
"""The same on a GPU, which is idle between steps that are too small."""


_PART_SAMPLES = 256
"""A thread with fewer samples than this costs more than it saves."""

_BLOCK_CHANNELS = 64
"""A layer's products with itself are computed in strips so high, from the diagonal to the right."""

_SMALL_PIXELS = 100
"""Maps of up to so many pixels have their products formed in float64."""


class Capture:
    """Sums of the layers and pairs of ``plan`` over images. Starts with those of no images."""

    def __init__(self, module: Network, plan: Plan, stage: Stage = Stage.AFTER_RELU) -> None:
        self._module = module
        self._plan = plan
        self._stage = stage
        self._device = next(module.parameters()).device
        self._step = CPU_STEP_IMAGES if self._device.type == "cpu" else GPU_STEP_IMAGES
        self._layers: dict[str, _LayerSums] = {}
        self._products: dict[Pair, Tensor] = {}
        self._rooms: dict[str, Tensor] = {}
        self._images = 0

    def add(self, images: NDArray[np.uint8]) -> None:
        """Add the responses to ``images`` [N, 3, H, W], RGB, 0..255."""
        with torch.inference_mode():
            for part in torch.split(torch.from_numpy(images), self._step):
                self._add(part.to(self._device))
                self._images += len(part)

    def sums(self) -> Sums:
        """What was added so far."""
        if self._images == 0:
            return Sums.zero(self._plan)
        layers = {
            shape.name: self._layers[shape.name].moments(self._images * shape.pixels)
            for shape in self._plan.layers
        }
        return Sums(self._plan, self._images, layers, {p: self._cross(p) for p in self._plan.pairs})

    def _add(self, images: Tensor) -> None:
        centred: dict[str, Tensor] = {}
        open_pairs = list(self._plan.pairs)
        for name, maps in self._wanted(images):
            layer = self._layers.get(name)
            if layer is None:
                layer = self._layers[name] = _LayerSums.starting_with(maps)
            samples = self._centred(name, maps, layer.shift)
            if maps.shape[2] * maps.shape[3] <= _SMALL_PIXELS:
                samples = samples.double()
            layer.add(samples.reshape(-1, samples.shape[3]))
            centred[name] = samples
            for pair in [p for p in open_pairs if p[0] in centred and p[1] in centred]:
                open_pairs.remove(pair)
                if pair[0] != pair[1]:
                    self._add_product(pair, centred[pair[0]], centred[pair[1]])

    def _centred(self, name: str, maps: Tensor, shift: Tensor) -> Tensor:
        """Maps [N, C, H, W] less ``shift``, as [N, H, W, C]: a row per pixel, as the map lies in memory.

        Written where those of the last images were: fresh memory would cost as much as the subtraction.
        """
        rows = maps.permute(0, 2, 3, 1)
        room = self._rooms.get(name)
        if room is None or len(room) < len(rows):
            room = self._rooms[name] = torch.empty(rows.shape, device=rows.device)
        return torch.sub(rows, shift, out=room[: len(rows)])

    def _wanted(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The responses of the plan's layers; runs no layer beyond the last of them."""
        wanted = {shape.name for shape in self._plan.layers}
        for name, maps in responses(self._module, images, self._stage):
            if name in wanted:
                yield name, maps
                wanted.remove(name)
                if not wanted:
                    return

    def _add_product(self, pair: Pair, first: Tensor, second: Tensor) -> None:
        height, width = min(first.shape[1:3], second.shape[1:3])
        rows, columns = (_rows(_pixel_sums(maps, height, width)) for maps in (first, second))
        dtype = torch.promote_types(rows.dtype, columns.dtype)
        product = _products(rows.to(dtype), columns.to(dtype))
        if pair in self._products:
            self._products[pair] += product
        else:
            self._products[pair] = product.double()

    def _cross(self, pair: Pair) -> Moments:
        pixels = self._plan.pixels(pair)
        samples = self._images * pixels
        first, second = self._plan.pair(pair)
        if first == second:
            return self._layers[first.name].moments(samples)
        sums = [
            (self._layers[shape.name].sums * (pixels // shape.pixels)).cpu().numpy()
            for shape in (first, second)
        ]
        shifts = [_float64(self._layers[shape.name].shift) for shape in (first, second)]
        products = self._products[pair].cpu().numpy()
        return Moments.from_shifted(samples, (shifts[0], shifts[1]), (sums[0], sums[1]), products)


@dataclass(slots=True)
class _LayerSums:
    """Sums over one layer's own pixels of responses less ``shift``: float32 [C], the others float64."""

    shift: Tensor
    sums: Tensor
    products: Tensor

    @classmethod
    def starting_with(cls, maps: Tensor) -> _LayerSums:
        # In float64 and then rounded: the shift of a constant channel is its value, to the last bit.
        shift = maps.double().mean(dim=(0, 2, 3)).float()
        channels = len(shift)
        zeros = torch.zeros(channels, channels, dtype=torch.float64, device=maps.device)
        return cls(shift, zeros[0].clone(), zeros)

    def add(self, samples: Tensor) -> None:
        """Add ``samples`` [N, C], which are shifted already."""
        self.sums += samples.sum(dim=0)
        for top in range(0, samples.shape[1], _BLOCK_CHANNELS):
            strip = samples[:, top : top + _BLOCK_CHANNELS]
            self.products[top : top + _BLOCK_CHANNELS, top:] += _products(strip, samples[:, top:])

    def moments(self, samples: int) -> Moments:
        shift, sums = _float64(self.shift), self.sums.cpu().numpy()
        # Symmetric: what is below the diagonal is not computed, or not all of it.
        products = (self.products.triu() + self.products.triu(1).T).cpu().numpy()
        return Moments.from_shifted(samples, (shift, shift), (sums, sums), products)


def _pixel_sums(maps: Tensor, height: int, width: int) -> Tensor:
    """Of maps [N, H, W, C], for each pixel of a height x width map the sum over those it stands for."""
    rows, columns = maps.shape[1] // height, maps.shape[2] // width
    if rows == columns == 1:
        return maps
    sums = nn.functional.avg_pool2d(maps.permute(0, 3, 1, 2), (rows, columns), divisor_override=1)
    return sums.permute(0, 2, 3, 1)


def _products(first: Tensor, second: Tensor) -> Tensor:
    """Sum over samples [N, C1] and [N, C2] of their products [C1, C2]; rounded as the samples are.

    On a CPU each thread takes a part of the samples: their products are too small to be shared.
    """
    parts = torch.get_num_threads() if first.device.type == "cpu" else 1
    if len(first) % parts or len(first) < parts * _PART_SAMPLES:
        return first.T @ second
    rows, columns = (x.reshape(parts, -1, x.shape[1]) for x in (first, second))
    return torch.bmm(rows.transpose(1, 2), columns).sum(dim=0)


def _rows(maps: Tensor) -> Tensor:
    """Maps [N, H, W, C] as samples [N x H x W, C]."""
    return maps.reshape(-1, maps.shape[3])


def _float64(values: Tensor) -> Array:
    result: Array = values.double().cpu().numpy()
    return result
