"""A trained network on a user's images: which of its convolutions can be grouped by what belongs together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rootmodels.analysis.moments import Moments
from rootmodels.layer import Layer
from rootmodels.parameters import fold_layer
from rootmodels.roots import RootsError, why_not
from rootmodels.source import Source
from rootmodels.suggest.channels import Space, find_spaces
from rootmodels.suggest.energy import Array, Energy
from rootmodels.suggest.grouping import Grouping, Piece
from rootmodels.suggest.patches import MOST_VALUES, patch_moments, window_values
from rootmodels.suggest.rewrite import regrouped
from rootmodels.tensors import Tensors
from rootmodels.weights import load_weights


@dataclass(frozen=True, slots=True)
class Study:
    """What the images say of a network, before any number of groups is chosen."""

    source: Source
    pieces: tuple[Piece, ...]
    """The convolutions that can be grouped."""
    means: Mapping[str, Array]
    """Of what each of them takes, [in k k]."""
    reasons: Mapping[str, str]
    """For each convolution, by name, why it cannot be grouped; "" if it can."""
    samples: Mapping[str, int]
    """Of what each of them takes, how many there were."""
    images: int

    def pieces_for(self, groups: int) -> list[Piece]:
        """Those whose channels divide into so many groups."""
        return [
            piece
            for piece in self.pieces
            if not piece.energy.channels % groups and not piece.energy.filters % groups
        ]

    def network(
        self, groups: int, grouping: Grouping, *, fit: bool = True
    ) -> tuple[tuple[Layer, ...], Tensors]:
        """The network in these groups: its layers and tensors; see :func:`regrouped`."""
        source, pieces = self.source, self.pieces_for(groups)
        return regrouped(source.model.layers, source.tensors, pieces, self.means, grouping, fit=fit)


def study(source: Source, images: NDArray[np.uint8], glob: str = "*") -> Study:
    """Look at the responses of ``source`` to ``images`` [N, 3, H, W] in 0..255.

    Raises:
        RootsError: if no convolution can be grouped, saying why for each.
    """
    layers = source.model.layers
    reasons = why_cannot_be_grouped(layers, glob)
    names = [name for name, reason in reasons.items() if not reason]
    if not names:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise RootsError(f"nothing can be grouped: {told}")
    module, _ = load_weights(source.path)
    moments = patch_moments(module, images, names, source.model.image_size)
    samples = {name: one.samples for name, one in moments.items()}
    means = {name: one.mean_rows for name, one in moments.items()}
    spaces = find_spaces(layers)
    pieces = []
    for layer in layers:
        if layer.name in moments:
            # Two of a large one would be too many.
            covariance = _covariance(moments.pop(layer.name))
            weight = fold_layer(layer, source.tensors).weight.astype(np.float64)
            taken, made = spaces[layer.inputs[0]].name, spaces[layer.name].name
            pieces.append(Piece(layer.name, taken, made, Energy(weight, covariance)))
    return Study(source, tuple(pieces), means, reasons, samples, len(images))


def _covariance(moments: Moments) -> Array:
    covariance = moments.scatter
    covariance /= max(moments.samples - 1, 1)
    return covariance


def why_cannot_be_grouped(layers: Sequence[Layer], glob: str = "*") -> dict[str, str]:
    """For each convolution, by name, why it cannot be grouped by what belongs together; "" if it can.

    The rules are those of :mod:`rootmodels.roots`; and the order of the channels that it takes and makes must
    be free.

    Raises:
        RootsError: if ``glob`` is the name of no convolution.
    """
    spaces = find_spaces(layers)
    by_name = {layer.name: layer for layer in layers}
    return {
        name: reason or _bound(by_name[name], spaces)
        for name, reason in why_not(layers, glob).items()
    }


def _bound(layer: Layer, spaces: Mapping[str, Space]) -> str:
    taken, made = spaces[layer.inputs[0]], spaces[layer.name]
    if taken.name == made.name:
        return "what it takes and what it makes are added: they have one order"
    for what, space in (("takes", taken), ("makes", made)):
        if space.fixed:
            return f"the channels that it {what} cannot be reordered: {space.fixed}"
    values = window_values(layer)
    if values > MOST_VALUES:
        return f"{values} values lie under its kernel, expected at most {MOST_VALUES}"
    return ""
