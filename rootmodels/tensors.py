"""Which tensors a network has in a weights file, and whether these are they."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from rootmodels.layer import Layer
from rootmodels.weights_info import WeightsError

_SHOWN_NAMES = 8
"""A message about wrong tensors names so many of a kind."""

Tensors = Mapping[str, NDArray[np.generic]]


def check_tensors(source: str, tensors: Tensors, variant: str, layers: Iterable[Layer]) -> None:
    """Refuse tensors that are not those of the training form of ``layers``.

    Raises:
        WeightsError: naming all that are missing and all that should not be there, or the first that has
            another shape or values that are not finite.
    """
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    check_shapes(source, shapes, variant, layers)
    for key in sorted(tensors):
        if not np.isfinite(tensors[key]).all():
            raise WeightsError(f"{source}: tensor {key} has values that are not finite")


def check_shapes(
    source: str, shapes: Mapping[str, tuple[int, ...]], variant: str, layers: Iterable[Layer]
) -> None:
    """As :func:`check_tensors`, of the names and shapes alone."""
    expected = dict(tensor_shapes(layers))
    missing, unexpected = expected.keys() - shapes.keys(), shapes.keys() - expected.keys()
    if missing or unexpected:
        texts = [("missing", missing), ("unexpected", unexpected)]
        told = "; ".join(f"{what}: {_list(names)}" for what, names in texts if names)
        raise WeightsError(f"{source}: its tensors are not those of {variant}; {told}")
    for key in sorted(expected):
        if shapes[key] != expected[key]:
            raise WeightsError(
                f"{source}: tensor {key} is {list(shapes[key])}, "
                f"{variant} has {list(expected[key])}"
            )


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


def _list(names: Iterable[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    shown = sorted(names)
    more = f" and {len(shown) - _SHOWN_NAMES} more" if len(shown) > _SHOWN_NAMES else ""
    return ", ".join(shown[:_SHOWN_NAMES]) + more
