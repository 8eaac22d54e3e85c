"""A graph of layers for images of another size, or for another number of classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from rootmodels.family import FamilyError
from rootmodels.layer import IMAGES, Extent, Layer, output_size

_PASSED_ON = ("affine", "flatten", "global_avg_pool", "identity")
"""Kinds that may follow the layer that makes the logits, and keep its channels."""


def resized(layers: Sequence[Layer], image_size: int) -> tuple[Layer, ...]:
    """``layers`` for images of ``image_size``: all but their sizes, and the windows of whole maps, stays.

    Whether they still fit together is for :func:`rootmodels.layer.check_graph` to say.
    """
    sizes: dict[str, Extent] = {IMAGES: image_size}
    found = []
    for layer in layers:
        taken = sizes[layer.inputs[0]]
        kernel = taken if layer.kind in ("adaptive_avg_pool", "global_avg_pool") else layer.kernel
        size = output_size(layer, taken)
        found.append(replace(layer, size=size, kernel=kernel))
        sizes[layer.name] = size
    return tuple(found)


def with_classes(layers: Sequence[Layer], classes: int) -> tuple[Layer, ...]:
    """``layers`` with as many logits as there are ``classes``.

    Raises:
        FamilyError: if the logits are not those of one convolution or linear layer.
    """
    head = head_of(layers)
    if not head:
        raise FamilyError(
            f"its logits come from {layers[-1].name!r} ({layers[-1].kind}), for {classes} classes "
            "expected a convolution without groups or a linear layer"
        )
    return tuple(
        layer if layer.name not in head else _with_channels(layer, classes) for layer in layers
    )


def _with_channels(layer: Layer, classes: int) -> Layer:
    taken = layer.in_channels if layer.has_weights else classes
    return replace(layer, in_channels=taken, out_channels=classes)


def head_of(layers: Sequence[Layer]) -> frozenset[str]:
    """The names of the layers whose channels are the logits; none if several layers make them."""
    by_name = {layer.name: layer for layer in layers}
    taken = Counter(name for layer in layers for name in layer.inputs)
    names = [layers[-1].name]
    while (layer := by_name[names[-1]]).kind in _PASSED_ON:
        (source,) = layer.inputs
        if layer.in_channels != layer.out_channels or source == IMAGES or taken[source] > 1:
            return frozenset()
        names.append(source)
    return frozenset(names) if layer.has_weights and layer.groups == 1 else frozenset()
