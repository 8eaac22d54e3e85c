"""The model that a caller names, or a refusal that says which there are."""

from __future__ import annotations

from rootserve.server.families import VirtualModel, find, interface_of, virtual_models
from rootserve.server.models import Model, Models
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire.words import quote


def find_model(models: Models, name: str, version: str) -> Model | VirtualModel:
    """The served model called ``name``, or the family that is served as one under it.

    Raises:
        RefusalError: UNKNOWN_MODEL when it is unknown, not served, or has no such version.
    """
    model = find(models, name)
    if model is None or (isinstance(model, Model) and not model.served):
        names = [model.card.name for model in models.served()]
        served = ", ".join([*names, *(family.name for family in virtual_models(models))])
        what = "no model is called" if model is None else "known but not served is"
        text = f"{what} {quote(name)}; {f'served: {served}' if served else 'no model is served'}"
        raise RefusalError(Reason.UNKNOWN_MODEL, text)
    has = interface_of(model).version
    if version not in ("", has):
        text = f"model {name} has no version {quote(version)}; it has version {has!r}"
        raise RefusalError(Reason.UNKNOWN_MODEL, text)
    return model


def find_variant(models: Models, name: str) -> Model:
    """The served model called ``name``, which is one network.

    Raises:
        RefusalError: UNKNOWN_MODEL, also for a family.
    """
    model = find_model(models, name, "")
    if isinstance(model, Model):
        return model
    members = ", ".join(member.card.name for member in model.members)
    text = f"{name} is a family, not one network; its variants: {members}"
    raise RefusalError(Reason.UNKNOWN_MODEL, text)


def find_known_model(models: Models, name: str) -> Model:
    """The model called ``name``, served or not.

    Raises:
        RefusalError: UNKNOWN_MODEL.
    """
    model = models.get(name)
    if model is None:
        known = ", ".join(each.card.name for each in models)
        raise RefusalError(
            Reason.UNKNOWN_MODEL, f"no model is called {quote(name)}; known: {known}"
        )
    return model
