"""A network with all that is needed to serve it, as plain data: a model file without its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from rootmodels.family import Channels, Family, Topology, Variant
from rootmodels.layer import Layer
from rootmodels.refit import resized, with_classes
from rootmodels.variants import family_of
from rootmodels.weights_info import WeightsInfo, class_names, image_size


@dataclass(frozen=True, slots=True)
class Model:
    """A network that a file describes; see :mod:`rootmodels.model_file`."""

    name: str
    """What it is served under: small letters, digits, "-", "." and "_"."""
    layers: tuple[Layer, ...]
    """In the order they run; the last one gives the logits."""
    mean: Channels
    std: Channels
    """What the network takes is an image in 0..255 less ``mean``, over ``std``."""
    image_size: int
    """Height and width of its square RGB images, in pixels."""
    classes: tuple[str, ...]
    """What the logits stand for."""
    crop: Fraction = Fraction(1)
    """Of a picture's shorter side, the middle part that is seen."""
    family: str = ""
    """By which variants of one network are put together; without, it is its own family."""
    topology: Topology = "orig"
    degree: int = 1
    """As for :class:`rootmodels.family.Variant`."""
    accuracy: float | None = None
    """Top-1, 0..1; None if nobody measured it."""
    test_images: int = 0
    tested_on: str = ""
    """How many images ``accuracy`` is of, and which."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Where it comes from, as whoever made the file tells it; nothing here depends on it."""

    @classmethod
    def of(cls, variant: Variant, layers: tuple[Layer, ...], info: WeightsInfo) -> Model:
        """What :attr:`variant` and :attr:`info` of it would be, with other weights and ``layers``."""
        family = family_of(variant)
        return cls(
            name=variant.name,
            layers=layers,
            mean=family.mean,
            std=family.std,
            image_size=image_size(variant, info),
            classes=class_names(variant, info),
            crop=family.crop,
            family=variant.family,
            topology=variant.topology,
            degree=variant.degree,
            accuracy=info.accuracy,
            test_images=info.test_images,
            tested_on=info.tested_on,
            provenance=_provenance(info),
        )

    @property
    def variant(self) -> Variant:
        """It as a variant of a family of its own.

        Raises:
            FamilyError: if a field is not what it must be.
        """
        groups = tuple(layer.groups for layer in self.layers if layer.kind == "conv")
        family = self.family or self.name
        variant = Variant(family, self.topology, self.degree, groups, title=self.name)
        home = Family(
            name=family,
            image_size=self.image_size,
            mean=self.mean,
            std=self.std,
            classes=self.classes,
            layers=self._graph,
            variants=(variant,),
            crop=self.crop,
        )
        return replace(variant, home=home)

    @property
    def info(self) -> WeightsInfo:
        """What its weights say of themselves."""
        training: dict[str, Any] = {"epochs": 0, "seed": 0, "data_sha256": "", "recipe": {}}
        told = self.provenance
        if all(isinstance(told[key], _OF_TRAINING.get(key, ())) for key in told):
            training |= told
        else:
            training["recipe"] = dict(told)
        return WeightsInfo(
            variant=self.name,
            accuracy=self.accuracy,
            test_images=self.test_images,
            tested_on=self.tested_on,
            classes=self.classes,
            image_size=self.image_size,
            **training,
        )

    def _graph(self, variant: Variant, size: int, classes: int) -> Iterator[Layer]:
        """The layers for images of ``size`` and so many ``classes``.

        Raises:
            FamilyError: if they cannot have so many.
        """
        layers = self.layers
        if size != self.image_size:
            layers = resized(layers, size)
        if classes != len(self.classes):
            layers = with_classes(layers, classes)
        yield from layers


_OF_TRAINING: Mapping[str, tuple[type, ...]] = {
    "epochs": (int,),
    "seed": (int,),
    "data_sha256": (str,),
    "recipe": (dict,),
    "hardware": (str,),
    "precision": (str,),
    "seconds": (int, float),
    "seed_accuracies": (dict,),
    "continued_from": (dict,),
}
"""What a training writes into the provenance: of WeightsInfo, what a model has no field for."""


def _provenance(info: WeightsInfo) -> dict[str, Any]:
    """What a training tells, but for what a model has a field for."""
    return {key: value for key, value in info.content().items() if key in _OF_TRAINING and value}
