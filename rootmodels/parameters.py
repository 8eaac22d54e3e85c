"""The parameters of a variant as plain arrays, as inference needs them: batch normalisation folded.

Every engine starts from these, and none of this needs torch. Files are those of
:mod:`rootmodels.weights`; their tensors are checked against the layers of their variant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from rootmodels.layers import Layer, network_layers
from rootmodels.variants import Variant, get_variant
from rootmodels.weights_info import WeightsError, WeightsInfo, read_info

NORM_EPSILON = 1e-5
"""What batch normalisation adds to the variance; torch's default."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ConvParameters:
    """One convolution: ``weight`` [out, in / groups, k, k], ``bias`` [out], float32."""

    weight: Array
    bias: Array


def load_parameters(path: Path, variant: Variant) -> dict[str, ConvParameters]:
    """The folded parameters in the file at ``path``, by layer name.

    Raises:
        WeightsError: if the file is unreadable, is another variant's, or its tensors are not those
            of its variant.
    """
    tensors, info = load_tensors(path)
    if info.variant != variant.name:
        raise WeightsError(f"{path} holds weights of {info.variant}, not of {variant.name}")
    return {layer.name: _fold(layer, tensors) for layer in _convolutions(variant)}


def random_parameters(variant: Variant) -> dict[str, ConvParameters]:
    """Parameters of a network nobody trained, by layer name: the same ones every time.

    He et al. 2015: weights with std = sqrt(2 / fan_in), where the fan is that of one filter group; no bias.
    """
    rng = np.random.default_rng(0)
    parameters = {}
    for layer in _convolutions(variant):
        shape = _weight_shape(layer)
        std = np.sqrt(2.0 / np.prod(shape[1:]))
        weight = rng.normal(0.0, std, shape).astype(np.float32)
        parameters[layer.name] = ConvParameters(weight, np.zeros(shape[0], np.float32))
    return parameters


def load_tensors(path: Path) -> tuple[dict[str, NDArray[np.generic]], WeightsInfo]:
    """The tensors of the training form in the file at ``path``, by their name in the module.

    Raises:
        WeightsError: if the file is unreadable or its tensors are not those of its variant.
    """
    info = read_info(path)
    tensors = load_file(path)
    expected = dict(_tensor_shapes(get_variant(info.variant)))
    for key in sorted(expected.keys() | tensors.keys()):
        if key not in tensors or key not in expected:
            side = "is missing from" if key not in tensors else "should not be in"
            raise WeightsError(f"{path}: tensor {key} {side} weights of {info.variant}")
        if tensors[key].shape != expected[key]:
            raise WeightsError(
                f"{path}: tensor {key} is {list(tensors[key].shape)}, "
                f"{info.variant} has {list(expected[key])}"
            )
        if not np.isfinite(tensors[key]).all():
            raise WeightsError(f"{path}: tensor {key} has values that are not finite")
    return tensors, info


def _convolutions(variant: Variant) -> Iterator[Layer]:
    return (layer for layer in network_layers(variant) if layer.kind == "conv")


def _weight_shape(layer: Layer) -> tuple[int, int, int, int]:
    fan = layer.in_channels // layer.groups
    return layer.out_channels, fan, layer.kernel, layer.kernel


def _tensor_shapes(variant: Variant) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the training form's tensors, as torch's state dict has them."""
    for layer in _convolutions(variant):
        prefix = f"body.{layer.name}"
        yield f"{prefix}.conv.weight", _weight_shape(layer)
        yield f"{prefix}.norm.num_batches_tracked", ()
        vectors = ("conv.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
        for vector in vectors:
            yield f"{prefix}.{vector}", (layer.out_channels,)


def _fold(layer: Layer, tensors: dict[str, NDArray[np.generic]]) -> ConvParameters:
    """Multiply the normalisation's running statistics into the convolution.

    With scale = gamma / sqrt(var + epsilon): weight * scale, (bias - mean) * scale + beta.
    """

    def get(name: str) -> NDArray[np.float64]:
        return tensors[f"body.{layer.name}.{name}"].astype(np.float64)

    scale = get("norm.weight") / np.sqrt(get("norm.running_var") + NORM_EPSILON)
    weight = get("conv.weight") * scale[:, None, None, None]
    bias = (get("conv.bias") - get("norm.running_mean")) * scale + get("norm.bias")
    return ConvParameters(weight.astype(np.float32), bias.astype(np.float32))
