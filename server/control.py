"""Loading and unloading models while the service runs: new weights are swapped in behind the old ones."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from rootmodels.weights_info import WeightsError
from server.core.reasons import Reason, RefusalError
from server.dispatcher import Dispatcher
from server.models import Model, ModelCard, Models, read_card
from server.workers.pool import LoadError, WorkerPool

_log = logging.getLogger(__name__)


class ModelControl:
    """Carries out one load or unload after the other. Weights come from one folder only."""

    def __init__(
        self, models: Models, pool: WorkerPool, dispatcher: Dispatcher, weights: Path
    ) -> None:
        self._models = models
        self._pool = pool
        self._dispatcher = dispatcher
        self._weights = weights
        self._one_at_a_time = asyncio.Lock()

    async def load(self, name: str) -> None:
        """Serve ``name`` with the weights that the folder has now; requests go on meanwhile.

        Raises:
            RefusalError: UNKNOWN_MODEL, or LOAD_FAILED, after which all is as it was.
        """
        async with self._one_at_a_time:
            model = self._find(name)
            try:
                card = await asyncio.to_thread(read_card, model.card.variant, self._weights)
                if model.served:
                    _check_same_shape(model.card, card)
                await self._pool.load_behind(card)
            except (LoadError, WeightsError) as error:
                text = f"model {name} was not loaded, nothing has changed: {error}"
                raise RefusalError(Reason.LOAD_FAILED, text) from error
            _log.info("model %s was loaded", name, extra={"model": name})

    async def unload(self, name: str) -> None:
        """Serve ``name`` no more: refuse new requests, answer those that wait, forget it.

        Raises:
            RefusalError: UNKNOWN_MODEL.
        """
        async with self._one_at_a_time:
            model = self._find(name)
            model.served = False
            await self._dispatcher.drain_model(name)
            self._pool.unload(name)
            model.was_ready = False
            _log.info("model %s was unloaded", name, extra={"model": name})

    def _find(self, name: str) -> Model:
        model = self._models.get(name)
        if model is None:
            known = ", ".join(model.card.name for model in self._models)
            raise RefusalError(Reason.UNKNOWN_MODEL, f"no model is called {name!r}; known: {known}")
        return model


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
