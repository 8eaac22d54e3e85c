"""What a variant is made of, layer by layer: the one source for modules, engines, cost and analysis.

The graph of a network is a tuple of :class:`rootmodels.layer.Layer` in the order they run, the last of which
gives the logits.
"""

from __future__ import annotations

from rootmodels.family import Variant
from rootmodels.layer import Layer
from rootmodels.variants import family_of


def network_layers(
    variant: Variant, image_size: int | None = None, classes: int | None = None
) -> tuple[Layer, ...]:
    """The layers of ``variant`` in the order they run.

    Args:
        variant: One of a family.
        image_size: Height and width of its images in pixels; without, the family's.
        classes: Number of logits; without, the family's.

    Raises:
        FamilyError: As :meth:`rootmodels.family.Family.network`.
    """
    return family_of(variant).network(variant, image_size, classes)
