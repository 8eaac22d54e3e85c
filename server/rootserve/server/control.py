"""Loading and unloading models while the service runs: new weights are swapped in behind the old ones."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from rootmodels.model_content import is_model_name
from rootmodels.weights_info import WeightsError, weights_path
from rootserve.server.dispatcher import Dispatcher
from rootserve.server.families import virtual_model
from rootserve.server.models import Model, ModelCard, Models, read_card
from rootserve.server.observers.events import Observer
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.workers.pool import LoadError, WorkerPool

_log = logging.getLogger(__name__)


class ModelControl:
    """Carries out one load or unload after the other. Weights come from one folder only.

    With ``untrained``, models without a weights file are loaded as well, with random weights.
    """

    def __init__(
        self,
        models: Models,
        pool: WorkerPool,
        dispatcher: Dispatcher,
        observer: Observer,
        weights: Path,
        *,
        untrained: bool = False,
    ) -> None:
        self._observer = observer
        self._untrained = untrained
        self._models = models
        self._pool = pool
        self._dispatcher = dispatcher
        self._weights = weights
        self._one_at_a_time = asyncio.Lock()

    async def load(self, name: str, caller: str = "") -> None:
        """Serve ``name`` with the weights that the folder has now; requests go on meanwhile.

        A model whose file came into the folder since the start is known from then on. ``caller`` is for the
        log.

        Raises:
            RefusalError: UNKNOWN_MODEL, or LOAD_FAILED, after which all is as it was; this also for a file
                that has the name of a family that is served as one model.
        """
        async with self._one_at_a_time:
            known = self._models.get(name)
            self._check_no_family(name)
            if known is None and not self._has_file(name):
                raise self._unknown(name)
            fields = {"model": name, "caller": caller}
            try:
                card = await asyncio.to_thread(read_card, name, self._weights)
                model = known or self._models.add(card)
                self._check_trained(model, card)
                if model.served:
                    _check_same_shape(model.card, card)
                await self._pool.load_behind(card)
            except (LoadError, WeightsError) as error:
                self._observer.model_loaded(name, "failed")
                text = f"model {name} was not loaded, nothing has changed: {error}"
                _log.warning("%s", text, extra=fields)
                raise RefusalError(Reason.LOAD_FAILED, text) from error
            self._observer.model_loaded(name, "ok")
            weights = f"weights {card.weights_sha256[:12]}" if card.weights else "untrained"
            _log.info("model %s was loaded, %s", name, weights, extra=fields)

    def _check_trained(self, model: Model, card: ModelCard) -> None:
        """Refuse to serve random weights where nobody asked for any.

        Raises:
            LoadError: if there is no weights file, and there was one or it is needed.
        """
        allowed = model.may_be_untrained or self._untrained
        if card.weights is None and (not allowed or (model.served and model.card.weights)):
            raise LoadError(
                f"{weights_path(card.name, self._weights)} does not exist; models without trained "
                "weights are loaded if they were named in --models and had none at the start, or with "
                "--untrained any"
            )

    async def unload(self, name: str, caller: str = "") -> None:
        """Serve ``name`` no more: refuse new requests, answer those that wait, forget it.

        Raises:
            RefusalError: UNKNOWN_MODEL.
        """
        async with self._one_at_a_time:
            self._check_no_family(name)
            model = self._find(name)
            model.served, model.retiring = False, True
            try:
                # A worker that dies meanwhile is replaced by one that has the model as well.
                await self._dispatcher.drain_model(name)
            finally:
                model.retiring, model.last = False, None
                self._pool.reconcile()
            fields = {"model": name, "caller": caller}
            _log.info("model %s was unloaded", name, extra=fields)

    def _check_no_family(self, name: str) -> None:
        """Refuse what has the name of a family.

        Raises:
            RefusalError: UNKNOWN_MODEL for the family itself, LOAD_FAILED for a model of its name.
        """
        family = virtual_model(self._models, name)
        if family is None:
            return
        if self._has_file(name):
            text = (
                f"{name} was not loaded, nothing has changed: the family {family.family} is served under "
                "this name; give the model another one"
            )
            raise RefusalError(Reason.LOAD_FAILED, text)
        members = ", ".join(member.card.name for member in family.members)
        text = f"{name} is a family, which is there as long as two of its variants are: {members}"
        raise RefusalError(Reason.UNKNOWN_MODEL, text)

    def _find(self, name: str) -> Model:
        model = self._models.get(name)
        if model is None:
            raise self._unknown(name)
        return model

    def _has_file(self, name: str) -> bool:
        """Whether a file of that name came into the folder since the start."""
        return is_model_name(name) and weights_path(name, self._weights).is_file()

    def _unknown(self, name: str) -> RefusalError:
        known = ", ".join(model.card.name for model in self._models)
        return RefusalError(
            Reason.UNKNOWN_MODEL,
            f"no model is called {name!r}, and {self._weights} has no file of it; known: {known}",
        )


def _check_same_shape(served: ModelCard, new: ModelCard) -> None:
    """Requests that wait were checked against what is served.

    Raises:
        LoadError: if the new weights take other images or give other logits.
    """
    shapes = [
        f"{card.image[1]}x{card.image[2]} images and {len(card.classes)} classes"
        for card in (served, new)
    ]
    if shapes[0] != shapes[1]:
        raise LoadError(
            f"its weights are for {shapes[1]}, those that are served for {shapes[0]}; unload it first"
        )
