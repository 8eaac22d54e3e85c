"""Workers that have models, without any process."""

from rootserve.server.models import Held, Models, WorkerState


def hold(models: Models, worker: str, *names: str) -> None:
    """Let ``worker`` be ready, with the models called so."""
    held = {name: Held(models[name].card, "fake", "fp32") for name in names}
    models.workers[worker] = WorkerState(ready=True, held=held)
    for name in names:
        models[name].last = held[name]
