"""What a worker is to do next, from what is desired and what it has: the one place that decides it."""

from __future__ import annotations

from typing import NamedTuple

from rootserve.server.models import ModelCard, Models, WorkerState


class Discard(NamedTuple):
    """Forget what it has of a model behind; with ``running``, what it computes as well."""

    model: str
    running: bool


class Swap(NamedTuple):
    """Compute a model with what it has behind."""

    model: str


class Load(NamedTuple):
    """Load a card; ``behind`` while it goes on computing."""

    card: ModelCard
    behind: bool


class GetReady(NamedTuple):
    """Take batches: it has all that it can have."""


Step = Discard | Swap | Load | GetReady


def next_step(models: Models, state: WorkerState) -> Step | None:
    """The next step of a worker that has started; None while there is nothing to do or it loads a model.

    When the step is done, ``state`` has changed, and there may be another one. A worker loads one thing at a
    time. It gets ready only when it has everything: a batch would wait until the next model is loaded.
    """
    return _tidy(models, state) or _load(models, state)


def _tidy(models: Models, state: WorkerState) -> Step | None:
    """What can be done at once: forget what is not wanted, swap in what is."""
    for name, held in state.held.items():
        model = models[name]
        # One that is not ready yet was told to load what is not served any more.
        if not model.is_wanted or (held.card is not model.card and not state.ready):
            return Discard(name, running=True)
    for name, staged in state.staged.items():
        model = models[name]
        if model.is_wanted and staged.card is model.card:
            return Swap(name)
        if staged.card is not model.next:
            return Discard(name, running=False)
    return None


def _load(models: Models, state: WorkerState) -> Step | None:
    if state.loading is not None:
        return None
    if not state.ready:
        for model in models.wanted():
            if model.card.name not in state.held and not state.why_failed(model.card):
                return Load(model.card, behind=False)
        return GetReady()
    for model in models:
        if model.next is not None and model.next.name not in state.staged:
            return Load(model.next, behind=True)
    return None
