"""The numbers of a training run, and what follows from them for one step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

RECIPE_SIDE = 32
"""The numbers of pixels in a recipe are for images with such a side; they grow with larger ones."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The numbers of a training run; written into the metadata of the weights."""

    epochs: int = 6
    batch_size: int = 256
    muon_lr: float = 0.04  # relative change of a convolution's weight in one step, at the peak
    muon_momentum: float = 0.95
    vector_lr: float = 0.3  # of the scales and shifts of batch normalisation, at the peak
    vector_momentum: float = 0.9
    warmup: float = 0.1  # share of the steps in which the learning rates rise
    label_smoothing: float = 0.1
    small_share: float = 0.75  # of the steps that see small crops: cheaper, and enough to begin
    small_size: int = 24  # pixels, a side of a small crop
    padding: int = 2  # pixels, around the image when the crop is as large as the image
    cutout: int = 0  # pixels, a side of the square of mean colour in each image
    mixup: float = 0.0  # at most so much of another image in each; drawn once for a batch
    teacher_share: float = 0.0  # of the loss that compares with a teacher; the rest with labels
    temperature: float = 1.0  # of both softmaxes in that comparison
    averaging: float = 0.0  # epochs over which weights are averaged, exponentially; 0: not at all

    def crop(self, step: int, steps: int) -> tuple[int, int]:
        """The crops at ``step`` of ``steps``: their side, how far they reach over the image's border."""
        if step < self.small_share * steps:
            return self.small_size, 0
        return RECIPE_SIDE, self.padding


def one_cycle(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at ``step`` of ``steps``: straight up, then straight to zero.

    After Smith and Topin, "Super-Convergence", 2018.
    """
    top = warmup * steps
    if step < top:
        return (step + 1) / (top + 1)
    return (steps - step) / (steps - top)


RECIPES = MappingProxyType(
    {
        "short": Recipe(),
        "long": Recipe(epochs=100, batch_size=512, padding=4, small_share=0.0),
        "taught": Recipe(
            epochs=29,
            batch_size=512,
            padding=4,
            small_share=0.0,
            teacher_share=1.0,
            temperature=4.0,
            averaging=1.0,
        ),
    }
)
"""``short`` for a CPU, ``long`` for a GPU, ``taught`` with a teacher: that of the shipped weights."""


def with_numbers(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """``recipe`` with other numbers, each said as NAME=VALUE.

    Raises:
        ValueError: if there is no such number, or the value is none.
    """
    kinds = {field.name: type(getattr(recipe, field.name)) for field in fields(recipe)}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if name not in kinds or not equals:
            raise ValueError(
                f"{setting!r} is no setting; expected NAME=VALUE of {', '.join(kinds)}"
            )
        try:
            recipe = replace(recipe, **{name: kinds[name](value)})
        except ValueError:
            raise ValueError(f"{name} is {value!r}, expected {kinds[name].__name__}") from None
    return recipe
