"""The models a server knows and how far each one is from answering requests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path

from rootmodels.cost import Cost, network_cost
from rootmodels.layer import Layer
from rootmodels.variants import VARIANTS, Variant
from rootmodels.weights_info import (
    WeightsError,
    WeightsInfo,
    class_names,
    file_sha256,
    image_size,
    read_info,
    weights_path,
)

VERSION = "1"
"""The one version of every model; perf_analyzer wants a bare integer."""

INPUT_NAME = "images"
ENCODED_NAME = "encoded"
"""The other way to send images: as JPEG or PNG files."""
LOGITS_NAME = "logits"
PROBABILITIES_NAME = "probabilities"


class State(Enum):
    """How far a model is from answering requests."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class ModelCard:
    """What does not change about a model. ``weights`` and ``info`` are None for an untrained one."""

    variant: Variant
    cost: Cost
    weights: Path | None
    info: WeightsInfo | None
    weights_sha256: str = ""
    """Of the weights file; "" for an untrained one."""

    @property
    def accuracy(self) -> float | None:
        """Top-1 accuracy of its weights, if they say it."""
        return self.info.accuracy if self.info else None

    @cached_property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        size = image_size(self.variant, self.info)
        return 3, size, size

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """What the logits stand for."""
        return class_names(self.variant, self.info)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Its network, layer by layer, for its own images and classes."""
        return tuple(cost.layer for cost in self.cost.layers)

    @cached_property
    def name(self) -> str:
        """The name it is served under."""
        return self.variant.name

    @cached_property
    def pixels(self) -> int:
        """Values of one image."""
        return math.prod(self.image)


@dataclass(slots=True)
class Model:
    """A model and what the workers say of it. ``served`` is whether it was asked for."""

    card: ModelCard
    served: bool = False
    engine: str = ""
    precision: str = ""
    ready_on: set[str] = field(default_factory=set)
    failures: dict[str, str] = field(default_factory=dict)
    """Worker name to why it cannot load the model."""
    was_ready: bool = False
    may_be_untrained: bool = False
    """Whether it was asked for at the start, and had no trained weights."""
    retiring: bool = False
    """Whether it is served no more, and what was admitted is still to be answered."""

    @property
    def state(self) -> State:
        """READY as soon as one worker has it, FAILED when one cannot load it and none has it."""
        if not self.served:
            return State.UNLOADED
        if self.ready_on:
            return State.READY
        return State.FAILED if self.failures else State.LOADING

    @property
    def is_ready(self) -> bool:
        """Whether it answers requests."""
        return self.state is State.READY

    @property
    def takes_requests(self) -> bool:
        """Whether requests are admitted: it is ready, or will be when a dead worker is replaced."""
        return self.is_ready or (self.was_ready and self.state is State.LOADING)

    @property
    def state_reason(self) -> str:
        """One line for people; empty when all is well."""
        match self.state:
            case State.LOADING:
                return "loading and warming up"
            case State.FAILED:
                return "; ".join(f"{worker}: {why}" for worker, why in self.failures.items())
            case _:
                return ""


class ModelSelectionError(ValueError):
    """A model that was asked for cannot be served; says which and what there is."""


class Models:
    """All models by name, in the order of the variant table."""

    def __init__(self, cards: Iterable[ModelCard]) -> None:
        self._models = {card.name: Model(card) for card in cards}
        self.draining = False
        """Whether the service is about to end, so that nobody should begin to use it."""

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def get(self, name: str) -> Model | None:
        """The model called ``name``."""
        return self._models.get(name)

    def served(self) -> list[Model]:
        """The models that were asked for."""
        return [model for model in self._models.values() if model.served]

    def wanted(self) -> list[Model]:
        """The models that workers should have: those served, and those that have requests to answer."""
        return [model for model in self._models.values() if model.served or model.retiring]

    @property
    def all_ready(self) -> bool:
        """Whether every model that was asked for is ready, and there is one."""
        served = self.served()
        return bool(served) and all(model.is_ready for model in served)

    @property
    def is_serving(self) -> bool:
        """Whether the server as a whole answers requests, and will a moment longer."""
        return self.all_ready and not self.draining

    def select(self, names: Iterable[str]) -> None:
        """Choose what is served: ``names``, or every trained model when there are none.

        Raises:
            ModelSelectionError: for an unknown name, or when nothing is left to serve.
        """
        chosen = list(names) or [
            model.card.name for model in self._models.values() if model.card.info
        ]
        for name in chosen:
            if name not in self._models:
                known = ", ".join(self._models)
                raise ModelSelectionError(f"models: {name!r} is not one of {known}")
            model = self._models[name]
            model.served = True
            model.may_be_untrained = model.card.info is None
        if not chosen:
            raise ModelSelectionError(
                "models: the weights folder has no trained model; name models to serve them untrained"
            )


def find_models(weights: Path) -> Models:
    """Every variant of the table, with the weights that ``weights`` has for it.

    Raises:
        WeightsError: if a file there is no weights file, or one of another variant.
    """
    return Models(read_card(variant, weights) for variant in VARIANTS.values())


def read_card(variant: Variant, weights: Path) -> ModelCard:
    """The card of one variant, with the weights that the folder ``weights`` has for it.

    Raises:
        WeightsError: as :func:`find_models`.
    """
    path = weights_path(variant.name, weights)
    # The hash first: a file that is replaced in between is not the one that workers are told to load.
    sha256 = file_sha256(path) if path.is_file() else ""
    info = read_info(path) if sha256 else None
    if info is not None and info.variant != variant.name:
        raise WeightsError(f"{path} holds weights of {info.variant}, not of {variant.name}")
    cost = network_cost(variant, image_size(variant, info), len(class_names(variant, info)))
    return ModelCard(variant, cost, path if info else None, info, sha256)
