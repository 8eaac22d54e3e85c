"""Grouped convolutions trained as dense ones: the same mathematics, on kernels that GPUs are fast at.

A convolution with filter groups is a dense one whose weight is zero where the groups do not connect. The
parameter stays the grouped one: the dense weight is made of it in each step, and the gradient that comes back
through that is the grouped gradient. Moreover, with dense weights variants that differ in their groups alone
are the same network with other numbers: one compilation serves them all.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rootmodels.family import Variant
from rootmodels.layer import Layer
from rootmodels.layers import network_layers
from rootmodels.network import Network


def dense_weight(weight: Tensor, groups: int) -> Tensor:
    """[out, in / groups, k, k] -> [out, in, k, k], zero where the groups do not connect."""
    if groups == 1:
        return weight
    filters, share, *window = weight.shape
    blocks = weight.reshape(groups, filters // groups, 1, share, *window)
    same = torch.eye(groups, dtype=weight.dtype, device=weight.device)
    spread = blocks * same.reshape(groups, 1, groups, 1, *(1 for _ in window))
    dense = spread.reshape(filters, groups * share, *window)
    return dense.contiguous(memory_format=torch.channels_last)


class DenseForm:
    """The forward pass, with dense weights, of all variants that differ in their groups alone.

    Args:
        variant: One of them.
        image_size: Height and width of its images in pixels; None for the family's.
        classes: Number of logits; None for the family's.
        device: Where it computes.
        compiled: Compile it, once for each size of images.
    """

    def __init__(
        self,
        variant: Variant,
        image_size: int | None,
        classes: int | None,
        device: torch.device,
        *,
        compiled: bool,
    ) -> None:
        self._network = Network(variant, image_size, classes).to(device).train()
        for part in self._network.modules():
            if isinstance(part, nn.Conv2d):
                part.groups = 1
        self._call = self._apply
        if compiled:
            self._call = torch.compile(self._apply, dynamic=False, fullgraph=True)

    def __call__(self, network: Network, images: Tensor) -> Tensor:
        """Logits of ``network``, in training mode: its statistics of normalisation move too."""
        tensors = dict(network.named_parameters()) | dict(network.named_buffers())
        for name, part in network.named_modules():
            if isinstance(part, nn.Conv2d):
                # A view where nothing is to do: for the compiler a parameter is of another type.
                weight = dense_weight(part.weight, part.groups)
                tensors[f"{name}.weight"] = weight.view_as(weight)
        return self._call(tensors, images)

    def _apply(self, tensors: dict[str, Tensor], images: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._network, tensors, (images,))
        return logits


_Key = tuple[tuple[Layer, ...], torch.device, bool]
_FORMS: dict[_Key, DenseForm] = {}


def dense_form(
    variant: Variant,
    image_size: int | None,
    classes: int | None,
    device: torch.device,
    compiled: bool,
) -> DenseForm:
    """One for all that a process trains and that differ in their groups alone: compiled once."""
    layers = (replace(x, groups=1) for x in network_layers(variant, image_size, classes))
    key = (tuple(layers), device, compiled)
    if key not in _FORMS:
        _FORMS[key] = DenseForm(variant, image_size, classes, device, compiled=compiled)
    return _FORMS[key]
