"""Network-in-Network as a torch module, built from a row of the variant table.

One class in two forms. The training form has a batch normalisation after each convolution; the
inference form (:meth:`NetworkInNetwork.fold`) has it multiplied into the convolutions, and has
exactly the parameters that :mod:`rootmodels.cost` counts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rootmodels.layers import CIFAR10_MEAN, CIFAR10_STD, Layer, network_layers
from rootmodels.parameters import ConvParameters
from rootmodels.variants import Variant


class ConvBlock(nn.Module):
    """Convolution, batch normalisation (training form only), ReLU."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel,
            stride=layer.stride,
            padding=layer.padding,
            groups=layer.groups,
        )
        self.norm: nn.Module = nn.BatchNorm2d(layer.out_channels)
        # He et al. 2015: std = sqrt(2 / fan_in). torch takes the fan from the weight's own shape,
        # [out, in / groups, k, k], which is the fan of one filter group.
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_in", nonlinearity="relu")
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] -> [N, out, H', W']."""
        out: Tensor = nn.functional.relu(self.norm(self.conv(x)))
        return out

    def fold(self) -> None:
        """Multiply the batch normalisation's running statistics into the convolution, in place."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class NetworkInNetwork(nn.Module):
    """A member of the Network-in-Network family, channels-last.

    ``forward`` takes RGB images [N, 3, H, W] in 0..255, of any dtype, normalises them and returns
    logits [N, classes]. The submodules of ``body`` carry the paper's layer names.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        self.register_buffer("mean", torch.tensor(CIFAR10_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(CIFAR10_STD).view(1, 3, 1, 1), persistent=False)
        self.body = nn.Sequential(
            OrderedDict((layer.name, _module(layer)) for layer in network_layers(variant))
        )
        _to_channels_last(self)

    @classmethod
    def from_parameters(
        cls, variant: Variant, parameters: Mapping[str, ConvParameters]
    ) -> NetworkInNetwork:
        """The inference form with ``parameters``, by layer name."""
        network = cls(variant).fold()
        for name, block in network.body.named_children():
            if isinstance(block, ConvBlock):
                block.conv.weight.data.copy_(torch.from_numpy(parameters[name].weight))
                assert block.conv.bias is not None
                block.conv.bias.data.copy_(torch.from_numpy(parameters[name].bias))
        return network

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, classes] of images [N, 3, H, W] in 0..255."""
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.body(x).flatten(1)
        return logits

    def fold(self) -> NetworkInNetwork:
        """Turn this module into its inference form, in place, and return it.

        The outputs agree with those of the training form in ``eval`` mode to about 1e-5.
        """
        self.eval()
        for module in self.body:
            if isinstance(module, ConvBlock):
                module.fold()
        _to_channels_last(self)
        return self


def _to_channels_last(module: nn.Module) -> None:
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _module(layer: Layer) -> nn.Module:
    match layer.kind:
        case "conv":
            return ConvBlock(layer)
        case "max_pool":
            return nn.MaxPool2d(layer.kernel, layer.stride, ceil_mode=True)
        case "avg_pool":
            return nn.AvgPool2d(layer.kernel, layer.stride, ceil_mode=True, count_include_pad=False)
        case "global_avg_pool":
            return nn.AdaptiveAvgPool2d(1)
