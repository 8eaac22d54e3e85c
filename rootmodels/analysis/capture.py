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
from torch import Tensor

from rootmodels.analysis.layers import Stage
from rootmodels.analysis.moments import Array, Moments
from rootmodels.analysis.responses import responses
from rootmodels.analysis.sums import Pair, Plan, Sums
from rootmodels.nin import NetworkInNetwork

CPU_STEP_IMAGES = 8
"""Images whose maps are held at a time; their largest map should fit into the processor's cache."""

GPU_STEP_IMAGES = 64
"""The same on a GPU, which is idle between steps that are too small."""


_SMALL_PIXELS = 100
"""Maps of up to so many pixels have their products formed in float64."""


class Capture:
    """Sums of the layers and pairs of ``plan`` over images. Starts with those of no images."""

    def __init__(
        self, module: NetworkInNetwork, plan: Plan, stage: Stage = Stage.AFTER_RELU
    ) -> None:
        self._module = module
        self._plan = plan
        self._stage = stage
        self._device = next(module.parameters()).device
        self._step = CPU_STEP_IMAGES if self._device.type == "cpu" else GPU_STEP_IMAGES
        self._layers: dict[str, _LayerSums] = {}
        self._products: dict[Pair, Tensor] = {}
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
            # Channels-last: a row per pixel is how the map lies in memory.
            samples = maps.permute(0, 2, 3, 1) - layer.shift
            if maps.shape[2] * maps.shape[3] <= _SMALL_PIXELS:
                samples = samples.double()
            layer.add(samples.reshape(-1, samples.shape[3]))
            centred[name] = samples
            for pair in [p for p in open_pairs if p[0] in centred and p[1] in centred]:
                open_pairs.remove(pair)
                if pair[0] != pair[1]:
                    self._add_product(pair, centred[pair[0]], centred[pair[1]])

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
        product = rows.to(dtype).T @ columns.to(dtype)
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
        # The matrix is symmetric: one of its quarters need not be computed.
        left, right = samples.tensor_split(2, dim=1)
        half = left.shape[1]
        across = left.T @ right
        self.products[:half, :half] += left.T @ left
        self.products[:half, half:] += across
        self.products[half:, :half] += across.T
        self.products[half:, half:] += right.T @ right

    def moments(self, samples: int) -> Moments:
        shift, sums = _float64(self.shift), self.sums.cpu().numpy()
        products = self.products.cpu().numpy()
        return Moments.from_shifted(samples, (shift, shift), (sums, sums), products)


def _pixel_sums(maps: Tensor, height: int, width: int) -> Tensor:
    """Of maps [N, H, W, C], for each pixel of a height x width map the sum over those it stands for."""
    rows, columns = maps.shape[1] // height, maps.shape[2] // width
    if rows == columns == 1:
        return maps
    images, _, _, channels = maps.shape
    return maps.reshape(images, height, rows, width, columns, channels).sum(dim=(2, 4))


def _rows(maps: Tensor) -> Tensor:
    """Maps [N, H, W, C] as samples [N x H x W, C]."""
    return maps.reshape(-1, maps.shape[3])


def _float64(values: Tensor) -> Array:
    result: Array = values.double().cpu().numpy()
    return result
