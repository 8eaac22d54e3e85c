"""A family of networks as one object: all that the rest of this project knows of it, without torch.

A family is a :class:`Family` in a file of its own, such as ``rootmodels/families/nin.py``. Modules, engines,
costs, weights files, training and analysis follow from its layers. :mod:`rootmodels.variants` collects the
families there are, those of other installed packages among them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, get_args

from rootmodels.layer import Layer, check_graph

Topology = Literal["orig", "root", "tree", "col", "own"]

Channels = tuple[float, float, float]
"""One value for each of red, green and blue, in 0..255."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def unnamed(classes: int) -> tuple[str, ...]:
    """What as many ``classes`` are called whose names nobody told."""
    return tuple(f"class {index}" for index in range(classes))


UNNAMED_CLASSES = unnamed(1000)
"""Those of ImageNet, for weights that do not tell their names."""


class FamilyError(ValueError):
    """A family is not what it must be; says which, what came and what was expected."""


@dataclass(frozen=True, slots=True)
class PaperFigures:
    """What the paper reports for a variant: top-1 and perhaps top-5 accuracy, milliseconds per image."""

    accuracy: float
    cpu_ms: float
    gpu_ms: float
    top5: float | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """One network of a family.

    ``groups`` holds the filter groups of the layers that the family groups, in order of depth. ``paper`` is
    None where the paper reports nothing.
    """

    family: str
    topology: Topology
    degree: int
    groups: tuple[int, ...]
    paper: PaperFigures | None = None
    revision: str = ""
    """What else tells it from the others of its family, as "v1.5" does of ResNet-50."""
    title: str = ""
    """Its name, where that does not follow from the rest: of a network that a file describes."""
    home: Family | None = field(default=None, repr=False, compare=False)
    """The family itself where it is known by no name, since a file describes it."""

    @property
    def name(self) -> str:
        """The name it is served under: ``nin-orig``, ``nin-root-4``, ``resnet50-v1.5``, ..."""
        if self.title:
            return self.title
        parts = [self.family, self.revision] if self.revision else [self.family]
        if self.topology != "orig":
            parts += [self.topology, str(self.degree)]
        elif not self.revision:
            parts.append("orig")
        return "-".join(parts)


@dataclass(frozen=True, slots=True)
class Family:
    """Networks that differ in their filter groups: their images, their classes and their layers.

    Raises:
        FamilyError: If a field is not what it must be.
    """

    name: str
    """Small letters, digits, "-", "." and "_"; the names of the variants begin with it."""
    image_size: int
    """Height and width of its square RGB images in pixels; weights may tell of another."""
    mean: Channels
    std: Channels
    """What a network takes is an image less ``mean``, over ``std``."""
    classes: tuple[str, ...]
    """Names of the logits; weights may tell of others."""
    layers: Callable[[Variant, int, int], Iterable[Layer]]
    """The layers of a variant for images of a size and a number of classes, in the order they run.

    The last one gives the logits. Called through :meth:`network`, which holds them to one another.
    """
    variants: tuple[Variant, ...]
    """In the order they are listed."""
    crop: Fraction = Fraction(1)
    """Of a picture's shorter side, the middle part that is seen. 1: all there is of a square picture."""
    paper_rows: int | None = None
    """Images of the batches whose times the paper reports."""

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        for right, words in (
            (_NAME.fullmatch(self.name), "a name of small letters, digits, '-', '.' and '_'"),
            (16 <= self.image_size <= 1024, f"images of 16 to 1024 pixels, got {self.image_size}"),
            (min(self.std) > 0, f"a std above 0, got {self.std}"),
            (self.classes and all(self.classes), "classes that have names"),
            (0 < self.crop <= 1, f"a crop above 0 and up to 1, got {self.crop}"),
            (names, "variants"),
            (len(set(names)) == len(names), f"different names of its variants, got {names}"),
        ):
            if not right:
                raise FamilyError(f"family {self.name!r}: expected {words}")
        for variant in self.variants:
            if variant.family != self.name or not _NAME.fullmatch(variant.name):
                raise FamilyError(f"family {self.name!r}: expected no variant {variant.name!r}")
            if variant.topology not in get_args(Topology):
                known = ", ".join(get_args(Topology))
                raise FamilyError(
                    f"{variant.name}: topology {variant.topology!r}, expected {known}"
                )

    def network(
        self, variant: Variant, image_size: int | None = None, classes: int | None = None
    ) -> tuple[Layer, ...]:
        """The layers of ``variant``, see :func:`rootmodels.layers.network_layers`.

        Raises:
            FamilyError: If they do not fit together, as for images that are too small.
        """
        size, logits = image_size or self.image_size, classes or len(self.classes)
        graph = tuple(self.layers(variant, size, logits))
        try:
            check_graph(graph, size, logits)
        except ValueError as error:
            raise FamilyError(f"{variant.name} for images of {size} pixels: {error}") from None
        return graph

    def short_side(self, size: int) -> int:
        """Pixels of a picture's shorter side before its middle is cropped to ``size``."""
        return int(size / self.crop)
