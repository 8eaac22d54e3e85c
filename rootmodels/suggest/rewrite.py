"""The weights of a network in another order of its channels, and in groups of those.

Reordering changes nothing that a network computes. Then a convolution in groups gets the weights that make
its responses most like those of the original (:mod:`rootmodels.suggest.energy`). Those vary less than the
original's, by what is not explained, so the weights are scaled until they vary as much. Means stay as they
were: what the filters no longer see on average goes into the bias. Where a normalisation follows, both are
done in its statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rootmodels.layer import Layer
from rootmodels.suggest.channels import Order, channel_orders
from rootmodels.suggest.energy import Array
from rootmodels.suggest.grouping import Grouping, Piece
from rootmodels.tensors import Tensors

_Changed = dict[str, NDArray[np.generic]]


def orders_of(grouping: Grouping) -> dict[str, Order]:
    """For each space, its channels group by group, and within a group as they were."""
    return {name: np.argsort(labels, kind="stable") for name, labels in grouping.items()}


def reordered(layers: Sequence[Layer], tensors: Tensors, chosen: Mapping[str, Order]) -> _Changed:
    """``tensors`` of the network that computes the same with its channels in other orders.

    Args:
        layers: In the order they run.
        tensors: Of its training form.
        chosen: The orders of spaces, by name.

    Raises:
        ValueError: as :func:`rootmodels.suggest.channels.channel_orders`.
    """
    orders = channel_orders(layers, chosen)
    changed: _Changed = dict(tensors)
    for layer in layers:
        if not layer.has_parameters:
            continue
        made, taken = orders[layer.name], orders[layer.inputs[0]]
        vectors = [f"{layer.path}.bias"] if layer.bias else []
        if layer.path:
            weight = np.asarray(tensors[f"{layer.path}.weight"])[made]
            # In groups, what it takes has one order with what it makes, or has kept its order.
            if layer.has_weights and layer.groups == 1:
                weight = weight[:, taken]
            changed[f"{layer.path}.weight"] = weight
        if layer.norm:
            parts = ("weight", "bias", "running_mean", "running_var")
            vectors += [f"{layer.norm}.{part}" for part in parts]
        changed |= {key: np.asarray(tensors[key])[made] for key in vectors}
    return changed


def regrouped(
    layers: Sequence[Layer],
    tensors: Tensors,
    pieces: Sequence[Piece],
    means: Mapping[str, Array],
    grouping: Grouping,
    *,
    fit: bool = True,
) -> tuple[tuple[Layer, ...], _Changed]:
    """The network with its ``pieces`` in the groups of ``grouping``: its layers, and their tensors.

    Args:
        layers: In the order they run.
        tensors: Of its training form, in the original order.
        pieces: The convolutions that are grouped.
        means: Of what they take, by their name: [in k k].
        grouping: The group of each channel.
        fit: Whether the weights that stay are fitted to the original's responses.
    """
    changed = reordered(layers, tensors, orders_of(grouping))
    by_name = {layer.name: layer for layer in layers}
    for piece in pieces:
        layer = by_name[piece.name]
        key = f"{layer.path}.weight"
        weight = np.asarray(tensors[key]).astype(np.float64)
        new = _grouped(piece, weight, means[piece.name], grouping, fit=fit)
        if layer.norm:
            _normalise_alike(layer, changed, new)
        else:
            layer = _biased_alike(layer, changed, new)
        changed[key] = new.weight.reshape(layer.out_channels, -1, *layer.kernels).astype(
            changed[key].dtype
        )
        by_name[piece.name] = replace(layer, groups=int(grouping[piece.taken].max()) + 1)
    return tuple(by_name[layer.name] for layer in layers), changed


@dataclass(slots=True)
class _Grouped:
    """The new weights of a convolution, filter by filter in the new order, and what they change."""

    weight: Array
    """[out, in / groups, k k]."""
    mean: Array
    """[out]: of the new responses, without a bias."""
    missing: Array
    """[out]: the mean of the old ones less that."""
    scale: Array
    """[out]: the standard deviation of the old responses over that of the new ones."""


def _grouped(
    piece: Piece, weight: Array, average: Array, grouping: Grouping, *, fit: bool
) -> _Grouped:
    made, taken = grouping[piece.made], grouping[piece.taken]
    flat = weight.reshape(*weight.shape[:2], -1)
    average = average.reshape(flat.shape[1:])
    parts, means, missing, scales = [], [], [], []
    for group in range(int(taken.max()) + 1):
        filters, channels = np.flatnonzero(made == group), np.flatnonzero(taken == group)
        part = flat[np.ix_(filters, channels)]
        if fit:
            part = piece.energy.fitted(weight, channels, filters)
        mean = np.einsum("ocp,cp->o", part, average[channels])
        parts.append(part)
        means.append(mean)
        missing.append(np.einsum("ocp,cp->o", flat[filters], average) - mean)
        scales.append(piece.energy.scale(weight, part, channels, filters))
    return _Grouped(*(np.concatenate(each) for each in (parts, means, missing, scales)))


def _normalise_alike(layer: Layer, changed: _Changed, new: _Grouped) -> None:
    """Have the normalisation after ``layer`` give responses of the same means and variances as before."""
    mean, variance = (f"{layer.norm}.{part}" for part in ("running_mean", "running_var"))
    old = _vector(changed[mean])
    changed[mean] = (old - new.missing).astype(np.float32)
    # epsilon is of no weight beside a variance, but for filters that are dead: they stay so.
    old = _vector(changed[variance])
    changed[variance] = (old / new.scale**2).astype(np.float32)


def _biased_alike(layer: Layer, changed: _Changed, new: _Grouped) -> Layer:
    """The same by the weights and the bias of ``layer`` itself; returns it, with a bias in any case."""
    key = f"{layer.path}.bias"
    old = _vector(changed[key]) if layer.bias else np.zeros(layer.out_channels)
    new.weight *= new.scale[:, None, None]
    shift = new.mean + new.missing - new.scale * new.mean
    changed[key] = (old + shift).astype(np.float32)
    return replace(layer, bias=True)


def _vector(tensor: NDArray[np.generic]) -> Array:
    """``tensor`` to compute with."""
    return tensor.astype(np.float64)
