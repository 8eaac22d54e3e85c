"""Which variants of a family the scheduler may choose from: told to it whenever that changes."""

from __future__ import annotations

from rootserve.server.core.family import Member, may_compute
from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Scheduler
from rootserve.server.families import SUFFIX, accuracy_of, comparable, family_name, virtual_model
from rootserve.server.models import Model, Models, State


class Members:
    """What the scheduler has been told of families.

    A variant that is served no more stays until what needs it is answered: who admits requests refuses those
    that would need it.
    """

    def __init__(self, models: Models, scheduler: Scheduler) -> None:
        self._models = models
        self._scheduler = scheduler
        self._told: dict[str, tuple[Member, ...]] = {}

    def update(self) -> tuple[Request, ...]:
        """Tell what has changed; gives the requests of families of which nothing is left."""
        found: dict[str, tuple[Member, ...]] = {}
        for family in dict.fromkeys(family_name(model.card) for model in self._models.wanted()):
            name = f"{family}{SUFFIX}"
            if name in self._told or virtual_model(self._models, name) is not None:
                able = (one for one in comparable(self._models, family) if can_compute(one))
                if members := tuple(member_of(model) for model in able):
                    found[name] = members
        left: list[Request] = []
        for name in [name for name in self._told if name not in found]:
            del self._told[name]
            left += self._scheduler.family_gone(name)
        for name, members in found.items():
            if self._told.get(name) != members:
                self._told[name] = members
                self._scheduler.family_served(name, members)
        return tuple(left)

    def variants(self, name: str) -> list[str]:
        """Those that may compute the family called ``name``; none of a model that is no family."""
        return [member.variant for member in self._told.get(name, ())]

    def may_compute(self, request: Request, but: str = "") -> bool:
        """Whether ``request`` is for one variant, or one other than that called ``but`` may compute it."""
        members = self._told.get(request.model)
        if members is None:
            return self._models.get(request.model) is not None
        return any(member.variant != but and may_compute(request, member) for member in members)


def can_compute(model: Model) -> bool:
    """Whether a worker computes it, or one may before long."""
    return model.is_held or model.state is not State.FAILED


def member_of(model: Model) -> Member:
    """``model`` as the scheduler knows it."""
    return Member(model.card.name, accuracy_of(model))
