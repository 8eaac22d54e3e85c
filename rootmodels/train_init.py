"""Starting from trained weights: those of the variant itself, or of one with fewer filter groups."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from rootmodels.network import Network
from rootmodels.refit import head_of
from rootmodels.tensors import tensor_shapes
from rootmodels.weights import load_weights
from rootmodels.weights_info import WeightsError, WeightsInfo


def narrowed(weight: Tensor, groups: int, to_groups: int) -> Tensor:
    """The connections of a convolution with ``groups`` that one with ``to_groups`` keeps.

    [out, in / groups, k, k] -> [out, in / to_groups, k, k]; ``to_groups`` is a multiple of ``groups``.
    """
    share = to_groups // groups
    filters, inputs = weight.shape[0] // to_groups, weight.shape[1] // share
    parts = weight.reshape(to_groups, filters, share, inputs, *weight.shape[2:])
    # The new group t is number t % share of those that its old group falls into.
    group = torch.arange(to_groups)
    return parts[group, :, group % share].reshape(-1, inputs, *weight.shape[2:])


def start_from(path: Path, model: Network) -> WeightsInfo:
    """Give ``model`` the weights at ``path``, and return what they say of themselves.

    Weights of another variant will do if each of its convolutions has as many groups or a divisor of that:
    what connects a filter to inputs outside of its new group is left out, and so is the layer that gives the
    logits, if there were other numbers of them.

    Raises:
        WeightsError: The file cannot be used, is of another family, or its groups do not fit.
    """
    source, info = load_weights(path)
    if source.variant.family != model.variant.family:
        raise WeightsError(
            f"{path} holds weights of {info.variant}, expected some of {model.variant.family}"
        )
    tensors = source.state_dict()
    own = model.state_dict()
    if source.layers[-1].out_channels != model.layers[-1].out_channels:
        # It begins with its own last layer.
        head = [layer for layer in model.layers if layer.name in head_of(model.layers)]
        tensors |= {key: own[key] for key, _ in tensor_shapes(head)}
    old = {name: part for name, part in source.named_modules() if isinstance(part, nn.Conv2d)}
    for name, conv in model.named_modules():
        # What the other variant has not is found out below.
        if isinstance(conv, nn.Conv2d) and name in old and conv.groups != old[name].groups:
            if conv.groups % old[name].groups:
                raise WeightsError(
                    f"{path}: {name} has {old[name].groups} groups in {info.variant}, expected a "
                    f"divisor of the {conv.groups} groups in {model.variant.name}"
                )
            key = f"{name}.weight"
            tensors[key] = narrowed(tensors[key], old[name].groups, conv.groups)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"{path}: does not fit {model.variant.name}: {error}") from error
    return info
