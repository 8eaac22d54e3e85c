"""The covariance of what convolutions take: the values under the kernel, over a user's images.

The sums are those of :mod:`rootmodels.analysis`: number of samples, means and scatter, added up in float64
and mergeable. A sample is what lies under the kernel at one place, ``C k k`` values, channel by channel,
zeros of the padding included. Of each image some places are drawn, always the same ones: neighbours say
nearly the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rootmodels.analysis.moments import Moments
from rootmodels.layer import IMAGES, Layer
from rootmodels.network import Network
from rootmodels.torch_layers import activate
from rootmodels.train_batches import scaled

PLACES = 64
"""Of each image, at most."""

MOST_VALUES = 8192
"""Under a kernel: the covariance of more takes over half a gigabyte."""

_STEP_IMAGES = 8


def window_values(layer: Layer) -> int:
    """Values under the kernel of a convolution in one group."""
    return layer.in_channels * layer.kernels[0] * layer.kernels[1]


def patch_moments(
    module: Network, images: NDArray[np.uint8], names: Sequence[str], image_size: int
) -> dict[str, Moments]:
    """Sums over what the convolutions called ``names`` take, as they see ``images`` [N, 3, H, W], 0..255.

    Images of another size than ``image_size`` are scaled. ``module`` computes as in inference.
    """
    module.eval()
    gathered = _Gathered(names)
    with torch.inference_mode():
        for start in range(0, len(images), _STEP_IMAGES):
            part = torch.from_numpy(images[start : start + _STEP_IMAGES])
            if part.shape[2] != image_size:
                part = scaled(part, image_size)
            _run(module, part, gathered)
    return {name: gathered.moments(name) for name in names}


def _run(module: Network, images: Tensor, gathered: _Gathered) -> None:
    values = {IMAGES: module.normalise(images)}
    left = set(gathered.names)
    for layer in module.layers:
        if layer.name in left:
            gathered.add(layer, values[layer.inputs[0]])
            left.remove(layer.name)
            if not left:
                return
        values[layer.name] = activate(layer, module.linear(layer, values))
        module.forget(layer, values)


class _Gathered:
    """Shifts, sums and products of each convolution's samples so far."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._samples = dict.fromkeys(names, 0)
        self._shifts: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._products: dict[str, Tensor] = {}
        self._generator = torch.Generator().manual_seed(0)

    def add(self, layer: Layer, maps: Tensor) -> None:
        """Add what ``layer`` sees of ``maps`` [N, C, H, W]."""
        rows = samples(layer, maps, self._generator)
        name = layer.name
        if name not in self._shifts:
            self._shifts[name] = rows.mean(0)
            self._sums[name] = torch.zeros(rows.shape[1], dtype=torch.float64)
            self._products[name] = torch.zeros((rows.shape[1],) * 2, dtype=torch.float64)
        rows = rows - self._shifts[name]
        self._samples[name] += len(rows)
        self._sums[name] += rows.sum(0, dtype=torch.float64)
        self._products[name] += rows.T @ rows

    def moments(self, name: str) -> Moments:
        """The sums of one of them, once."""
        shift, sums = self._shifts[name].double().numpy(), self._sums[name].numpy()
        # Taken out: those of a large convolution are some hundred megabytes.
        products = self._products.pop(name).numpy()
        return Moments.from_shifted(self._samples[name], (shift, shift), (sums, sums), products)


def samples(layer: Layer, maps: Tensor, generator: torch.Generator) -> Tensor:
    """What ``layer`` sees of ``maps`` [N, C, H, W]: float32 [samples, C k k]."""
    top, left, bottom, right = layer.pads
    padded = functional.pad(maps.float(), (left, right, top, bottom)).contiguous()
    columns = functional.unfold(padded, layer.kernels, layer.dilations, 0, layer.strides)
    places = columns.shape[2]
    if places > PLACES:
        draw = torch.rand(len(maps), places, generator=generator)
        chosen = draw.topk(PLACES, dim=1).indices[:, None].expand(-1, columns.shape[1], -1)
        columns = columns.gather(2, chosen)
    return columns.permute(0, 2, 1).reshape(-1, columns.shape[1])
