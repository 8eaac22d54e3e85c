"""Loading and unloading models while the service runs: new weights are swapped in behind the old ones."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from dataclasses import replace

from rootmodels.weights_info import WeightsError
from rootserve.server.dispatcher import Dispatcher
from rootserve.server.families import virtual_model
from rootserve.server.models import Model, ModelCard, Models
from rootserve.server.observers.events import Observer
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.repository import Repository
from rootserve.server.workers.pool import LoadError, WorkerPool

_log = logging.getLogger(__name__)

_REMEMBERED = 16
"""How many of a model's loads a caller can go back, one by one."""


class ModelControl:
    """Carries out one load or unload after the other. Weights come from the repository only.

    With ``untrained``, models without a weights file are loaded as well, with random weights.
    """

    def __init__(
        self,
        models: Models,
        pool: WorkerPool,
        dispatcher: Dispatcher,
        observer: Observer,
        repository: Repository,
        *,
        untrained: bool = False,
    ) -> None:
        self._observer = observer
        self._untrained = untrained
        self._models = models
        self._pool = pool
        self._dispatcher = dispatcher
        self._repository = repository
        self._one_at_a_time = asyncio.Lock()
        self._before: defaultdict[str, deque[ModelCard]] = defaultdict(
            lambda: deque(maxlen=_REMEMBERED)
        )
        """What was served before what is served now, the latest last."""

    async def load(self, name: str, caller: str = "", version: int | None = None) -> None:
        """Serve ``name`` with the weights that the folder has now; requests go on meanwhile.

        A model whose file came into the folder since the start is known from then on. ``caller`` is for the
        log, ``version`` as :meth:`rootserve.server.repository.Repository.read` takes it.

        Raises:
            RefusalError: UNKNOWN_MODEL, or LOAD_FAILED, after which all is as it was; this also for a file
                that has the name of a family that is served as one model.
        """
        async with self._one_at_a_time:
            known = self._models.get(name)
            await self._check_no_family(name)
            if known is None and not await asyncio.to_thread(self._has_file, name):
                raise self._unknown(name)
            was_served = known is not None and known.served
            before = known.card if known else None
            try:
                card = await asyncio.to_thread(self._repository.read, name, version)
                card = await self._serve(known or self._models.add(card), card)
            except (LoadError, WeightsError) as error:
                raise self._refused(name, caller, error) from error
            if was_served and before is not None and _differ(before, card):
                self._before[name].append(before)
            self._tell_live(card, caller, "was loaded")

    async def roll_back(self, name: str, caller: str = "") -> None:
        """Serve ``name`` with what was served before its last load; done again, with what was before that.

        Where no load is remembered, with the next lower version.

        Raises:
            RefusalError: UNKNOWN_MODEL, or LOAD_FAILED, after which all is as it was.
        """
        async with self._one_at_a_time:
            await self._check_no_family(name)
            model = self._find(name)
            try:
                card = await asyncio.to_thread(self._card_before, model)
                card = await self._serve(model, card)
            except (LoadError, WeightsError) as error:
                raise self._refused(name, caller, error) from error
            if self._before[name]:
                self._before[name].pop()
            self._tell_live(card, caller, "was rolled back")

    def _card_before(self, model: Model) -> ModelCard:
        """The card that a rollback serves.

        Raises:
            LoadError: if there is none, or its weights are gone.
            WeightsError: if its file cannot be read.
        """
        live = model.card
        if not model.served:
            raise LoadError("it is not served; load it")
        if not self._before[live.name]:
            lower = [n for n in self._repository.versions(live.name) if n < int(live.version)]
            if not lower:
                raise LoadError(
                    f"there is nothing before version {live.version}: no other load since the start, and "
                    "no lower version in the folder"
                )
            return self._repository.read(live.name, lower[-1])
        before = self._before[live.name][-1]
        if before.weights is None:
            raise LoadError("before, it had no trained weights")
        card = self._repository.read(live.name, int(before.version))
        if card.weights_sha256 != before.weights_sha256:
            raise LoadError(
                f"{before.weights} was replaced: its SHA-256 begins with {card.weights_id}, what was served "
                f"before with {before.weights_id}; keep each version in a folder of its own"
            )
        return card

    async def _serve(self, model: Model, card: ModelCard) -> ModelCard:
        """Have every worker load ``card``, and serve it; gives it with its generation.

        Raises:
            LoadError: if that cannot be; all is as it was.
        """
        self._check_trained(model, card)
        if model.served:
            _check_same_shape(model.card, card)
        card = replace(card, generation=model.card.generation + 1)
        await self._pool.load_behind(card)
        return card

    def _refused(self, name: str, caller: str, error: Exception) -> RefusalError:
        self._observer.model_loaded(name, "failed")
        text = f"model {name} was not loaded, nothing has changed: {error}"
        _log.warning("%s", text, extra={"model": name, "caller": caller})
        return RefusalError(Reason.LOAD_FAILED, text)

    def _tell_live(self, card: ModelCard, caller: str, what: str) -> None:
        self._observer.model_loaded(card.name, "ok")
        weights = "untrained"
        if card.weights:
            weights = f"version {card.version}, weights {card.weights_id}"
        fields = {
            "model": card.name,
            "version": card.version,
            "weights": card.weights_id,
            "generation": card.generation,
            "caller": caller,
        }
        text = "model %s %s, %s%s"
        at_start = (
            "; at the next start it is the latest again, unless versions names this one"
            if card.is_pinned and int(card.version) != self._repository.pinned.get(card.name)
            else ""
        )
        _log.info(text, card.name, what, weights, at_start, extra=fields)

    def _check_trained(self, model: Model, card: ModelCard) -> None:
        """Refuse to serve random weights where nobody asked for any.

        Raises:
            LoadError: if there is no weights file, and there was one or it is needed.
        """
        allowed = model.may_be_untrained or self._untrained
        if card.weights is None and (not allowed or (model.served and model.card.weights)):
            raise LoadError(
                f"{self._repository.paths(card.name)} does not exist; models without trained "
                "weights are loaded if they were named in --models and had none at the start, or with "
                "--untrained any"
            )

    async def unload(self, name: str, caller: str = "") -> None:
        """Serve ``name`` no more: refuse new requests, answer those that wait, forget it.

        Raises:
            RefusalError: UNKNOWN_MODEL.
        """
        async with self._one_at_a_time:
            await self._check_no_family(name)
            model = self._find(name)
            model.served, model.retiring = False, True
            try:
                # A worker that dies meanwhile is replaced by one that has the model as well.
                await self._dispatcher.drain_model(name)
            finally:
                model.retiring, model.last = False, None
                self._before.pop(name, None)
                self._pool.reconcile()
            fields = {"model": name, "caller": caller}
            _log.info("model %s was unloaded", name, extra=fields)

    async def _check_no_family(self, name: str) -> None:
        """Refuse what has the name of a family.

        Raises:
            RefusalError: UNKNOWN_MODEL for the family itself, LOAD_FAILED for a model of its name.
        """
        family = virtual_model(self._models, name)
        if family is None:
            return
        if await asyncio.to_thread(self._has_file, name):
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
        """Whether files of that name came into the folder since the start, though they be too many."""
        try:
            return self._repository.has(name)
        except WeightsError:
            return True

    def _unknown(self, name: str) -> RefusalError:
        known = ", ".join(model.card.name for model in self._models)
        return RefusalError(
            Reason.UNKNOWN_MODEL,
            f"no model is called {name!r}, and {self._repository.places} has no file of it; known: {known}",
        )


def _differ(one: ModelCard, other: ModelCard) -> bool:
    return (one.version, one.weights_sha256) != (other.version, other.weights_sha256)


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
