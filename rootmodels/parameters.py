"""A network as plain arrays, as inference needs it: batch normalisation folded into the convolutions.

Every engine starts from these, and none of this needs torch. Files are those of
:mod:`rootmodels.weights`; their tensors are checked against the layers of their variant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from rootmodels.family import Variant
from rootmodels.layer import Layer
from rootmodels.layers import network_layers
from rootmodels.variants import get_variant
from rootmodels.weights_info import WeightsError, WeightsInfo, class_names, image_size, read_info

_SHOWN_NAMES = 8
"""A message about wrong tensors names so many of a kind."""

Array = NDArray[np.float32]
Tensors = Mapping[str, NDArray[np.generic]]


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
    tensors, info = load_tensors(path)
    if info.variant != variant.name:
        raise WeightsError(f"{path} holds weights of {info.variant}, not of {variant.name}")
    layers = _layers(variant, info)
    parameters = {
        layer.name: fold_layer(layer, tensors) for layer in layers if layer.has_parameters
    }
    return FoldedNetwork(variant, image_size(variant, info), layers, parameters)


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


def load_tensors(path: Path) -> tuple[dict[str, NDArray[np.generic]], WeightsInfo]:
    """The tensors of the training form in the file at ``path``, by their name in the module.

    Raises:
        WeightsError: if the file is unreadable or its tensors are not those of its variant.
    """
    info = read_info(path)
    tensors = load_file(path)
    check_tensors(str(path), tensors, info.variant, _layers(get_variant(info.variant), info))
    return tensors, info


def check_tensors(source: str, tensors: Tensors, variant: str, layers: Iterable[Layer]) -> None:
    """Refuse tensors that are not those of the training form of ``layers``.

    Raises:
        WeightsError: naming all that are missing and all that should not be there, or the first that has
            another shape or values that are not finite.
    """
    expected = dict(tensor_shapes(layers))
    missing, unexpected = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    if missing or unexpected:
        texts = [("missing", missing), ("unexpected", unexpected)]
        told = "; ".join(f"{what}: {_list(names)}" for what, names in texts if names)
        raise WeightsError(f"{source}: its tensors are not those of {variant}; {told}")
    for key in sorted(expected):
        if tensors[key].shape != expected[key]:
            raise WeightsError(
                f"{source}: tensor {key} is {list(tensors[key].shape)}, "
                f"{variant} has {list(expected[key])}"
            )
        if not np.isfinite(tensors[key]).all():
            raise WeightsError(f"{source}: tensor {key} has values that are not finite")


def tensor_shapes(layers: Iterable[Layer]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the training form's tensors, as torch's state dict has them."""
    for layer in layers:
        if not layer.has_parameters:
            continue
        if layer.path:
            yield f"{layer.path}.weight", layer.weight_shape
        if layer.bias:
            yield f"{layer.path}.bias", (layer.out_channels,)
        if layer.norm:
            yield f"{layer.norm}.num_batches_tracked", ()
            for vector in ("weight", "bias", "running_mean", "running_var"):
                yield f"{layer.norm}.{vector}", (layer.out_channels,)


def _layers(variant: Variant, info: WeightsInfo) -> tuple[Layer, ...]:
    return network_layers(variant, image_size(variant, info), len(class_names(variant, info)))


def _list(names: Iterable[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    shown = sorted(names)
    more = f" and {len(shown) - _SHOWN_NAMES} more" if len(shown) > _SHOWN_NAMES else ""
    return ", ".join(shown[:_SHOWN_NAMES]) + more


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
