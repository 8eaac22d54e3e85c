"""The smallest and the largest response of each layer over some images, for quantisation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rootmodels.calibration import Range
from rootmodels.layer import IMAGES
from rootmodels.network import Network
from rootmodels.torch_layers import activate
from rootmodels.train_batches import fitted

_STEP_IMAGES = 16
"""Images whose maps are held at a time."""


@torch.inference_mode()
def measure_ranges(module: Network, images: NDArray[np.uint8], image_size: int) -> dict[str, Range]:
    """By layer, after its ReLU, and ``images`` for the normalised input; ``module`` is folded.

    Images of another size are scaled to ``image_size``.

    Smallest and largest, not a percentile or the least mean squared error: those lower the mean error of the
    int8 logits by some percent, and clip what is rare, which doubles the largest error
    (docs/adr/0009-engines-and-precision.md).
    """
    ranges: dict[str, Range] = {}

    def widen(name: str, x: Tensor) -> None:
        low, high = ranges.get(name, (0.0, 0.0))
        least, most = x.aminmax()
        ranges[name] = (min(low, float(least)), max(high, float(most)))

    for start in range(0, len(images), _STEP_IMAGES):
        step = fitted(torch.from_numpy(images[start : start + _STEP_IMAGES]), image_size)
        values = {IMAGES: module.normalise(step)}
        widen(IMAGES, values[IMAGES])
        for layer in module.layers:
            x = module.linear(layer, values)
            values[layer.name] = activate(layer, x, in_place=True)
            widen(layer.name, values[layer.name])
            module.forget(layer, values)
    return ranges
