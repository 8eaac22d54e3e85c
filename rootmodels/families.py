"""What the networks of a family have in common besides their layers: images and classes. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from rootmodels.variants import Family

Channels = tuple[float, float, float]
"""One value for each of red, green and blue, in 0..255."""

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

UNNAMED_CLASSES = tuple(f"class {index}" for index in range(1000))
"""Those of ImageNet, for weights that do not tell their names."""


@dataclass(frozen=True, slots=True)
class FamilyFacts:
    """Square RGB images of ``image_size`` pixels, less ``mean``, over ``std``, in the classes ``classes``.

    Weights may tell of another image size and of other classes. Of a picture's shorter side, the middle
    ``crop`` is seen.
    """

    image_size: int
    mean: Channels
    std: Channels
    classes: tuple[str, ...]
    crop: Fraction = Fraction(1)
    """1: all there is of a square picture, as with the small images of CIFAR."""


FAMILIES: Mapping[Family, FamilyFacts] = MappingProxyType(
    {
        # Mean and standard deviation of the CIFAR-10 training images.
        "nin": FamilyFacts(32, (125.3, 123.0, 113.9), (63.0, 62.1, 66.7), CIFAR10_CLASSES),
        # The mean and standard deviation that torchvision uses for ImageNet, times 255.
        "resnet50": FamilyFacts(
            224,
            (123.675, 116.28, 103.53),
            (58.395, 57.12, 57.375),
            UNNAMED_CLASSES,
            crop=Fraction(224, 256),
        ),
    }
)
