"""A network as plain arrays, as inference needs it: batch normalisation folded into the convolutions.

Every engine starts from these, and none of this needs torch. Files are those of
:mod:`rootmodels.weights`; their tensors are checked against the layers of their variant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from rootmodels.family import Variant
from rootmodels.layer import Layer
from rootmodels.layers import network_layers
from rootmodels.model_file import open_weights
from rootmodels.tensors import Tensors, check_tensors
from rootmodels.weights_info import WeightsError, WeightsInfo, class_names, image_size

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LayerParameters:
    """Of a convolution, linear or affine layer, float32: ``weight`` [Layer.weight_shape], ``bias`` [out]."""

    weight: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class FoldedNetwork:
    """All that an engine needs to know: the graph, and the parameters of its layers by their name."""

    variant: Variant
    image_size: int
    layers: tuple[Layer, ...]
    parameters: Mapping[str, LayerParameters]


def load_network(path: Path, variant: Variant) -> FoldedNetwork:
    """The network whose training form is in the file at ``path``.

    Raises:
        WeightsError: if the file is unreadable, is another variant's, or its tensors are not those
            of its variant.
    """
    tensors, found, info = load_tensors(path)
    if found.name != variant.name:
        raise WeightsError(f"{path} holds weights of {found.name}, not of {variant.name}")
    layers = _layers(found, info)
    parameters = {
        layer.name: fold_layer(layer, tensors) for layer in layers if layer.has_parameters
    }
    return FoldedNetwork(found, image_size(found, info), layers, parameters)


def random_network(variant: Variant) -> FoldedNetwork:
    """A network nobody trained: the same one every time.

    Weights have std = sqrt(gain / fan_in), where the fan is that of one filter group; no bias. The gain is 2
    where an activation follows (He et al. 2015), and 1/2 where none does, so that the sums of a residual
    network neither grow nor vanish over its blocks.
    """
    rng = np.random.default_rng(0)
    layers = network_layers(variant)
    parameters = {}
    for layer in layers:
        if not layer.has_parameters:
            continue
        shape = layer.weight_shape
        weight = np.ones(shape, np.float32)
        if layer.has_weights:
            std = np.sqrt((2.0 if layer.activation != "none" else 0.5) / np.prod(shape[1:]))
            weight = rng.normal(0.0, std, shape).astype(np.float32)
        parameters[layer.name] = LayerParameters(weight, np.zeros(shape[0], np.float32))
    return FoldedNetwork(variant, image_size(variant, None), layers, parameters)


def load_tensors(path: Path) -> tuple[dict[str, NDArray[np.generic]], Variant, WeightsInfo]:
    """The tensors in the file at ``path``, by their name in the training form, and what they are of.

    Raises:
        WeightsError: if the file is unreadable or its tensors are not those of its network.
    """
    variant, info = open_weights(path)
    try:
        tensors: dict[str, NDArray[np.generic]] = load_file(path)
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        # The last two are what numpy's reader says of a number format that numpy has not.
        raise WeightsError(f"{path} cannot be read: {error}") from error
    check_tensors(str(path), tensors, variant.name, _layers(variant, info))
    return tensors, variant, info


def _layers(variant: Variant, info: WeightsInfo) -> tuple[Layer, ...]:
    return network_layers(variant, image_size(variant, info), len(class_names(variant, info)))


def fold_layer(layer: Layer, tensors: Tensors) -> LayerParameters:
    """Multiply the normalisation's running statistics into a convolution; a linear layer has none.

    With scale = gamma / sqrt(var + epsilon): weight * scale, (bias - mean) * scale + beta. An affine layer
    with a normalisation is these alone, of a weight of 1 and a bias of 0.
    """

    def get(name: str) -> NDArray[np.float64]:
        return tensors[name].astype(np.float64)

    weight = get(f"{layer.path}.weight") if layer.path else np.ones(layer.weight_shape)
    bias = get(f"{layer.path}.bias") if layer.bias else np.zeros(layer.out_channels)
    if layer.norm:
        scale = get(f"{layer.norm}.weight")
        scale = scale / np.sqrt(get(f"{layer.norm}.running_var") + layer.epsilon)
        weight = weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
        bias = (bias - get(f"{layer.norm}.running_mean")) * scale + get(f"{layer.norm}.bias")
    return LayerParameters(weight.astype(np.float32), bias.astype(np.float32))
