"""Metrics put together: what is counted, what is read at each scrape, and where it is served."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from rootserve.server import version
from rootserve.server.core.scheduler import Scheduler
from rootserve.server.families import virtual_models
from rootserve.server.models import Models
from rootserve.server.observers.metrics import Metrics
from rootserve.server.observers.metrics_endpoint import MetricsEndpoint
from rootserve.server.observers.metrics_gpu import gpu_collector
from rootserve.server.observers.metrics_state import ServerView, StateCollector, WorkerView
from rootserve.server.workers.pool import WorkerPool


class Monitoring:
    """Owns the registry. ``metrics`` is the observer that counts."""

    def __init__(self, models: Models, trace_id: Callable[[], str] | None) -> None:
        self._models = models
        self._registry = CollectorRegistry()
        self.metrics = Metrics(self._registry, trace_id, self._accuracy_of)
        self.models_changed()

    def models_changed(self) -> None:
        """Show the series of every served model, at zero if nothing was counted yet."""
        for model in self._models.served():
            self.metrics.show_model(model.card.name)
        for family in virtual_models(self._models):
            members = tuple(member.card.name for member in family.members)
            self.metrics.show_family(family.name, members)

    def _accuracy_of(self, name: str) -> float | None:
        model = self._models.get(name)
        return None if model is None else model.card.accuracy

    def follow(self, scheduler: Scheduler, pool: WorkerPool) -> None:
        """From now on read at each scrape, from its thread, what is not counted by events."""

        def workers() -> Iterator[WorkerView]:
            for worker in pool.workers.values():
                handle, spec = worker.handle, worker.spec
                pid = handle.pid if handle else 0
                yield WorkerView(spec.name, spec.device, worker.state.ready, pid)

        for worker in pool.workers:
            self.metrics.show_worker(worker)
        view = ServerView(version(), self._models, scheduler, workers)
        self._registry.register(StateCollector(view))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        gpus = gpu_collector()
        if gpus is not None:
            self._registry.register(gpus)

    def endpoint(self, host: str, port: int, on_death: Callable[[], object]) -> MetricsEndpoint:
        """The endpoint of all this; ``on_death`` is called, from its thread, should it die.

        Raises:
            OSError: if it cannot listen there.
        """
        return MetricsEndpoint(
            host, port, self._registry, lambda: self._models.is_serving, on_death
        )
