"""A family of variants as one model, ``NAME-auto``: the scheduler chooses which one computes a request.

What there is follows from what is served, so that it changes as models come and go.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple, Protocol
from weakref import WeakKeyDictionary

from rootmodels.model_content import is_model_name
from rootserve.server.models import VERSION, Model, ModelCard, Models, State

_log = logging.getLogger(__name__)

SUFFIX = "-auto"
"""What the name of a family ends with where it is asked for as one model."""

_ROOTED = "rooted"
"""In the provenance of a model file: the file of the original that it was made of."""

_FILE = ".safetensors"


class Interface(Protocol):
    """What a request for a model is checked against."""

    @property
    def name(self) -> str:
        """What it is asked for by."""

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""

    @property
    def pixels(self) -> int:
        """Values of one image."""

    @property
    def version(self) -> str:
        """Of its weights."""

    @property
    def classes(self) -> tuple[str, ...]:
        """What the logits stand for."""


@dataclass(frozen=True, slots=True)
class VirtualModel:
    """Variants of one family that are served, of known accuracy, for the same images and classes."""

    name: str
    family: str
    members: tuple[Model, ...]
    """Two or more, in the order they are listed."""
    version: str = VERSION
    """A family has one; its members' are told with their answers."""

    @property
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.members[0].card.image

    @property
    def pixels(self) -> int:
        """Values of one image."""
        return self.members[0].card.pixels

    @property
    def classes(self) -> tuple[str, ...]:
        """What the logits stand for."""
        return self.members[0].card.classes

    @property
    def accuracy(self) -> float:
        """Of the most accurate member."""
        return max(accuracy_of(member) for member in self.members)

    @property
    def is_ready(self) -> bool:
        """Whether it answers requests."""
        return any(member.is_ready for member in self.members)

    @property
    def takes_requests(self) -> bool:
        """Whether requests are admitted."""
        return any(member.takes_requests for member in self.members)

    @property
    def state(self) -> State:
        """The best one of its members'."""
        states = {member.state for member in self.members}
        return next(
            state for state in (State.READY, State.LOADING, State.FAILED) if state in states
        )

    @property
    def state_reason(self) -> str:
        """One line for people; empty when all is well."""
        if self.state is State.READY:
            return ""
        reasons = {member.card.name: member.state_reason for member in self.members}
        return "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)

    @property
    def engine(self) -> str:
        """What its members were computed with last; "" if they were not, or not all with the same."""
        return _common(member.engine for member in self.members)

    @property
    def precision(self) -> str:
        """As :attr:`engine`."""
        return _common(member.precision for member in self.members)


def interface_of(model: Model | VirtualModel) -> Interface:
    """What a request for ``model`` is checked against."""
    return model.card if isinstance(model, Model) else model


def accuracy_of(model: Model) -> float:
    """Top-1 accuracy of a model that has one."""
    accuracy = model.card.accuracy
    assert accuracy is not None, model.card.name
    return accuracy


def virtual_models(models: Models) -> list[VirtualModel]:
    """All families that are served as one, in the order of their first members."""
    return list(_by_name(models).values())


def virtual_model(models: Models, name: str) -> VirtualModel | None:
    """The family that is served under ``name``; a model that has this name goes before it."""
    return _by_name(models).get(name)


class _Found(NamedTuple):
    """The families there are, as long as what they follow from is as ``seen``."""

    seen: list[tuple[ModelCard, bool, bool]]
    by_name: dict[str, VirtualModel]


_found: WeakKeyDictionary[Models, _Found] = WeakKeyDictionary()


def _by_name(models: Models) -> dict[str, VirtualModel]:
    """Found anew when something has changed: every request asks, and finding takes ten times as long."""
    seen = [(model.card, model.served, model.retiring) for model in models]
    known = _found.get(models)
    if known is None or known.seen != seen:
        known = _found[models] = _Found(seen, _find_all(models))
    return known.by_name


def _find_all(models: Models) -> dict[str, VirtualModel]:
    found = {}
    for family in dict.fromkeys(family_name(model.card) for model in models.served()):
        name = f"{family}{SUFFIX}"
        members = tuple(model for model in comparable(models, family) if model.served)
        if len(members) > 1 and models.get(name) is None:
            found[name] = VirtualModel(name, family, members)
    return found


def find(models: Models, name: str) -> Model | VirtualModel | None:
    """The model called ``name``, or the family that is served as one under it."""
    model = models.get(name)
    return virtual_model(models, name) if model is None else model


def comparable(models: Models, family: str) -> tuple[Model, ...]:
    """Those of ``family`` that workers should have, of known accuracy, each able to stand for the others.

    Weights may be for other images or classes than those of the first: such a variant is left out.
    """
    found = [
        model
        for model in models
        if model.is_wanted and model.card.accuracy is not None and family_name(model.card) == family
    ]
    return tuple(model for model in found if _alike(model.card, found[0].card))


def family_name(card: ModelCard) -> str:
    """What a model is a variant of: as its family or its file says, or its file's provenance."""
    family = card.variant.family
    if card.variant.home is not None and family == card.name and card.info is not None:
        original = card.info.recipe.get(_ROOTED)
        name = PurePath(original).stem if isinstance(original, str) else ""
        if is_model_name(name) and original == f"{name}{_FILE}":
            return name
    return family


def with_families(models: Models, names: Iterable[str]) -> Iterator[str]:
    """``names``, with the trained variants of a family in the place of its own name."""
    for name in names:
        family = name.removesuffix(SUFFIX)
        trained = [
            model.card.name
            for model in models
            if model.card.accuracy is not None and family_name(model.card) == family
        ]
        if family != name and models.get(name) is None and len(trained) > 1:
            yield from trained
        else:
            yield name


def warn_of_taken_names(models: Models) -> None:
    """Log which families cannot be asked for as one, since a model has their name."""
    for family in dict.fromkeys(family_name(model.card) for model in models.served()):
        name = f"{family}{SUFFIX}"
        if models.get(name) is not None and len(comparable(models, family)) > 1:
            _log.warning(
                "the family %s is not served as one model: %s is the name of a model file; "
                "give the file another name to have both",
                family,
                name,
                extra={"model": name},
            )


def _alike(one: ModelCard, other: ModelCard) -> bool:
    return one.image == other.image and one.classes == other.classes


def _common(values: Iterable[str]) -> str:
    different = set(values)
    return different.pop() if len(different) == 1 else ""
