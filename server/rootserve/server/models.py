"""What is to be served, what each worker has of it, and how far each model is from answering requests.

Nothing here is kept twice: a model's state is read off its desired card and what the workers actually have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from rootmodels.cost import Cost
from rootmodels.family import Family, Variant
from rootmodels.layer import Layer
from rootmodels.variants import family_of
from rootmodels.weights_info import WeightsInfo, class_names, image_size
from rootserve.server.nearest import nearest

VERSION = "1"
"""The version of weights that are in no folder of versions; perf_analyzer wants a bare integer."""

WEIGHTS_ID_DIGITS = 12
"""Of a SHA-256, in answers, metrics and log lines."""

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
    version: str = VERSION
    generation: int = 0
    """How often the model had been loaded, this time included; 0 if it never was."""
    is_pinned: bool = False
    """Whether this very version was asked for, and not the latest."""

    @property
    def weights_id(self) -> str:
        """The first digits of the weights' SHA-256, by which they are told apart; "" for an untrained one."""
        return self.weights_sha256[:WEIGHTS_ID_DIGITS]

    @property
    def accuracy(self) -> float | None:
        """Top-1 accuracy of its weights, if they say it."""
        return self.info.accuracy if self.info else None

    @cached_property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        size = image_size(self.variant, self.info)
        return 3, size, size

    @property
    def family(self) -> Family:
        """What it is a variant of."""
        return family_of(self.variant)

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


class Held(NamedTuple):
    """A model in a worker: whose card it was told to load, and what it computes it with."""

    card: ModelCard
    engine: str
    precision: str

    @property
    def told(self) -> tuple[str, str, str, str, int]:
        """What answers tell of it, in the order of :class:`rootserve.server.pending.Report`."""
        card = self.card
        return self.engine, self.precision, card.version, card.weights_id, card.generation


@dataclass(slots=True)
class WorkerState:
    """What one worker has. Changed by the pool alone."""

    ready: bool = False
    """Whether it takes batches."""
    held: dict[str, Held] = field(default_factory=dict)
    """Models it computes batches of, warm."""
    staged: dict[str, Held] = field(default_factory=dict)
    """Models it has behind those, to be swapped in."""
    loading: ModelCard | None = None
    failed: dict[str, tuple[ModelCard, str]] = field(default_factory=dict)
    """What it could not load and need not try again, and why."""
    trouble: str = ""
    """Why it may never be ready."""

    def why_failed(self, card: ModelCard) -> str:
        """Why it could not load ``card``; "" if it did not try."""
        failed = self.failed.get(card.name)
        return failed[1] if failed is not None and failed[0] is card else ""

    def reset(self) -> None:
        """Its process has ended, and with it all that it had."""
        self.ready, self.loading = False, None
        self.held, self.staged, self.failed = {}, {}, {}


@dataclass(slots=True)
class Model:
    """A model as it is desired. ``workers`` are all that there are, by name."""

    card: ModelCard
    workers: Mapping[str, WorkerState]
    served: bool = False
    """Whether it was asked for."""
    next: ModelCard | None = None
    """What is to take the place of ``card`` as soon as every worker that is ready has it behind."""
    retiring: bool = False
    """Whether it is served no more, and what was admitted is still to be answered."""
    may_be_untrained: bool = False
    """Whether it was asked for at the start, and had no trained weights."""
    last: Held | None = None
    """What it was computed with last; None if it was not since it is served."""

    @property
    def is_wanted(self) -> bool:
        """Whether workers should have it."""
        return self.served or self.retiring

    @property
    def is_held(self) -> bool:
        """Whether a worker that takes batches has it."""
        name = self.card.name
        # Asked for on every request: a loop takes half the time of any().
        for worker in self.workers.values():  # noqa: SIM110
            if worker.ready and name in worker.held:
                return True
        return False

    @property
    def failures(self) -> dict[str, str]:
        """Why workers that do not have it cannot load it."""
        found = {
            name: worker.why_failed(self.card) or worker.trouble
            for name, worker in self.workers.items()
            if not (worker.ready and self.card.name in worker.held)
        }
        return {name: why for name, why in found.items() if why}

    @property
    def state(self) -> State:
        """READY as soon as one worker has it, FAILED when one cannot load it and none has it."""
        if not self.served:
            return State.UNLOADED
        if self.is_held:
            return State.READY
        return State.FAILED if self.failures else State.LOADING

    @property
    def is_ready(self) -> bool:
        """Whether it answers requests."""
        return self.served and self.is_held

    @property
    def takes_requests(self) -> bool:
        """Whether requests are admitted: it is ready, or will be when a dead worker is replaced."""
        return self.is_ready or (self.last is not None and self.state is State.LOADING)

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

    @property
    def engine(self) -> str:
        """What it was computed with last; "" if it was not."""
        return self.last.engine if self.last else ""

    @property
    def precision(self) -> str:
        """As :attr:`engine`."""
        return self.last.precision if self.last else ""


class ModelSelectionError(ValueError):
    """A model that was asked for cannot be served; says which and what there is."""


class Models:
    """All models by name, in the order of the variant table, those of files after it."""

    def __init__(self, cards: Iterable[ModelCard]) -> None:
        self.workers: dict[str, WorkerState] = {}
        """What each worker has."""
        self._models = {card.name: Model(card, self.workers) for card in cards}
        self.draining = False
        """Whether the service is about to end, so that nobody should begin to use it."""

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def __getitem__(self, name: str) -> Model:
        return self._models[name]

    def get(self, name: str) -> Model | None:
        """The model called ``name``."""
        return self._models.get(name)

    def add(self, card: ModelCard) -> Model:
        """Know one more model, which is not served yet."""
        assert card.name not in self._models
        model = Model(card, self.workers)
        # A new one, since a scrape may go through the old one in its own thread.
        self._models = {**self._models, card.name: model}
        return model

    def served(self) -> list[Model]:
        """The models that were asked for."""
        return [model for model in self._models.values() if model.served]

    def wanted(self) -> list[Model]:
        """The models that workers should have: those served, and those that have requests to answer."""
        return [model for model in self._models.values() if model.is_wanted]

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
                hint = nearest(name, self._models)
                raise ModelSelectionError(f"models: {name!r} is not one of {known}{hint}")
            model = self._models[name]
            model.card = replace(model.card, generation=1)
            model.served = True
            model.may_be_untrained = model.card.info is None
        if not chosen:
            raise ModelSelectionError(
                "models: the weights folder has no trained model; name models to serve them untrained"
            )
