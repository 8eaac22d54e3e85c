"""The responses of a network's layers to images, layer by layer, as the networks run."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from rootmodels.analysis.layers import Stage
from rootmodels.nin import ConvBlock, NetworkInNetwork


def responses(
    module: NetworkInNetwork, images: Tensor, stage: Stage
) -> Iterator[tuple[str, Tensor]]:
    """Each convolution's name and its responses [N, C, H, W], channels-last, in the order they run.

    Runs a layer only when it is asked for. ``images`` is [N, 3, H, W] in 0..255.
    """
    x = module.normalise(images)
    for name, layer in module.body.named_children():
        if not isinstance(layer, ConvBlock):
            x = layer(x)
            continue
        linear = layer.linear(x)
        if stage is Stage.BEFORE_RELU:
            yield name, linear
            x = nn.functional.relu(linear)
        else:
            # Nobody else has it: in place saves a map's worth of memory traffic.
            x = nn.functional.relu_(linear)
            yield name, x
