"""What a variant is made of, layer by layer: the one source for modules, engines, cost and analysis.

The graph of a network is a tuple of :class:`rootmodels.layer.Layer` in the order they run, the last of which
gives the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from rootmodels.families import FAMILIES
from rootmodels.layer import Layer
from rootmodels.layers_nin import nin_layers
from rootmodels.layers_resnet50 import resnet50_layers
from rootmodels.variants import Family, Variant

_BUILDERS: Mapping[Family, Callable[[Variant, int, int], Iterator[Layer]]] = {
    "nin": nin_layers,
    "resnet50": resnet50_layers,
}


def network_layers(
    variant: Variant, image_size: int | None = None, classes: int | None = None
) -> tuple[Layer, ...]:
    """The layers of ``variant`` in the order they run.

    Args:
        variant: A row of the variant table.
        image_size: Height and width of its images in pixels; without, the family's.
        classes: Number of logits; without, the family's.
    """
    facts = FAMILIES[variant.family]
    return tuple(
        _BUILDERS[variant.family](
            variant, image_size or facts.image_size, classes or len(facts.classes)
        )
    )
