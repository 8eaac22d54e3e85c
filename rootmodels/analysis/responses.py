"""The responses of a network's layers to images, layer by layer, as the networks run."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from rootmodels.analysis.layers import Stage
from rootmodels.layer import IMAGES
from rootmodels.network import Network
from rootmodels.torch_layers import activate


def responses(module: Network, images: Tensor, stage: Stage) -> Iterator[tuple[str, Tensor]]:
    """Each convolution's name and its responses [N, C, H, W], channels-last, in the order they run.

    Runs a layer only when it is asked for. ``module`` is in its inference form, ``images`` is
    [N, 3, H, W] in 0..255.

    The last convolution of a ResNet-50 bottleneck, and the projection beside it, have no ReLU of their own:
    it comes after they were added. Their responses are those before the addition, at either stage.
    """
    values = {IMAGES: module.normalise(images)}
    for layer in module.layers:
        x = module.linear(layer, values)
        if stage is Stage.AFTER_RELU:
            # Nobody else has it: in place saves a map's worth of memory traffic.
            x = activate(layer, x, in_place=True)
        if layer.kind == "conv":
            yield layer.name, x
        if stage is Stage.BEFORE_RELU:
            x = activate(layer, x)
        values[layer.name] = x
        module.forget(layer, values)
