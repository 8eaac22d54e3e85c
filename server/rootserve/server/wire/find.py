"""The model that a caller names, or a refusal that says which there are."""

from __future__ import annotations

from rootserve.server.models import Model, Models
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire.words import quote


def find_model(models: Models, name: str, version: str) -> Model:
    """The served model called ``name``.

    Raises:
        RefusalError: UNKNOWN_MODEL when it is unknown, not served, or has no such version.
    """
    model = models.get(name)
    if model is None or not model.served:
        served = ", ".join(model.card.name for model in models.served())
        what = "no model is called" if model is None else "known but not served is"
        text = f"{what} {quote(name)}; {f'served: {served}' if served else 'no model is served'}"
        raise RefusalError(Reason.UNKNOWN_MODEL, text)
    if version not in ("", model.card.version):
        has = model.card.version
        text = f"model {name} has no version {quote(version)}; it has version {has!r}"
        raise RefusalError(Reason.UNKNOWN_MODEL, text)
    return model


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
