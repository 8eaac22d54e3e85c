"""What is read at each scrape: queues, workers, models, and whether the server serves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from rootserve.server.core.scheduler import Scheduler
from rootserve.server.families import virtual_models
from rootserve.server.models import Models
from rootserve.server.observers import metrics_catalog as catalog
from rootserve.server.observers.metrics_catalog import Kind, Metric

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker as metrics see it; ``pid`` is 0 while it has no process."""

    name: str
    device: str
    ready: bool
    pid: int


@dataclass(frozen=True, slots=True)
class ServerView:
    """Where the figures are. All is asked from the thread of a scrape, so nothing may wait or change."""

    version: str
    models: Models
    scheduler: Scheduler
    workers: Callable[[], Iterable[WorkerView]]


class StateCollector(Collector):
    """Makes the catalogue's gauges, and the workers' process metrics, of a :class:`ServerView`."""

    def __init__(self, view: ServerView) -> None:
        self._view = view

    def describe(self) -> Iterable[Family]:
        """Nothing; the registry would read all figures to learn their names."""
        return []

    def collect(self) -> Iterator[Family]:
        """All families as they are now."""
        yield from self._server()
        yield from self._models()
        yield from self._workers()

    def _server(self) -> Iterator[Family]:
        limits = self._view.scheduler.limits
        yield info(catalog.BUILD, {"version": self._view.version})
        yield gauge(catalog.SERVING, [((), self._view.models.is_serving)])
        yield gauge(catalog.BATCH_LIMIT, [((), limits.max_batch_rows)])
        yield gauge(catalog.QUEUE_LIMIT, [((), limits.max_queue_rows)])

    def _models(self) -> Iterator[Family]:
        scheduler = self._view.scheduler
        served = self._view.models.served()
        names = [(model.card.name,) for model in served]
        cards = [model.card for model in served]
        yield gauge(catalog.ROWS_QUEUED, [(name, scheduler.rows_queued(*name)) for name in names])
        # What waits for a family waits for none of its variants.
        families = [(one.name,) for one in virtual_models(self._view.models)]
        backlogs = [(name, scheduler.backlog_s(*name)) for name in (*names, *families)]
        yield gauge(catalog.BACKLOG, [(name, one) for name, one in backlogs if one is not None])
        yield gauge(
            catalog.ROWS_IN_FLIGHT, [(name, scheduler.rows_in_flight(*name)) for name in names]
        )
        yield gauge(catalog.MODEL_READY, [((model.card.name,), model.is_ready) for model in served])
        yield gauge(catalog.MODEL_PARAMS, [((card.name,), card.cost.params) for card in cards])
        yield gauge(catalog.MODEL_MACS, [((card.name,), card.cost.macs) for card in cards])
        yield gauge(
            catalog.MODEL_ACCURACY,
            [((card.name,), card.accuracy) for card in cards if card.accuracy is not None],
        )
        yield gauge(catalog.MODEL_GENERATION, [((card.name,), card.generation) for card in cards])
        weights = info(catalog.MODEL_WEIGHTS)
        for card in cards:
            values = {"model": card.name, "version": card.version, "weights": card.weights_id}
            weights.add_metric([], values)
        yield weights
        family = info(catalog.MODEL_INFO)
        for model in served:
            card = model.card
            values = {
                "model": card.name,
                "family": card.variant.family,
                "variant": card.name.removeprefix(f"{card.variant.family}-"),
                "engine": model.engine,
                "precision": model.precision,
                "accuracy": "" if card.accuracy is None else f"{card.accuracy:.4f}",
                "params": str(card.cost.params),
                "macs": str(card.cost.macs),
            }
            family.add_metric([], values)
        yield family

    def _workers(self) -> Iterator[Family]:
        workers = list(self._view.workers())
        yield gauge(catalog.WORKER_UP, [((one.name, one.device), one.ready) for one in workers])
        usage = [(one.name, process_usage(one.pid)) for one in workers if one.pid]
        known = [(name, used) for name, used in usage if used is not None]
        cpu = CounterMetricFamily(*_named(catalog.WORKER_CPU), labels=catalog.WORKER_CPU.labels)
        for name, (cpu_s, _) in known:
            cpu.add_metric([name], cpu_s)
        yield cpu
        yield gauge(catalog.WORKER_MEMORY, [((name,), resident) for name, (_, resident) in known])


def gauge(metric: Metric, values: Iterable[tuple[tuple[str, ...], float]]) -> GaugeMetricFamily:
    """A family of ``metric`` with a value for each tuple of label values."""
    assert metric.kind is Kind.GAUGE, metric.name
    family = GaugeMetricFamily(*_named(metric), labels=metric.labels)
    for labels, value in values:
        family.add_metric(labels, float(value))
    return family


def info(metric: Metric, labels: dict[str, str] | None = None) -> InfoMetricFamily:
    """An info family of ``metric``, with one sample if there are ``labels``."""
    assert metric.kind is Kind.INFO, metric.name
    return InfoMetricFamily(*_named(metric), value=labels)


def process_usage(pid: int) -> tuple[float, int] | None:
    """Processor seconds and resident bytes of a process; None if it is gone."""
    try:
        # The name, in parentheses, may hold anything; what follows are the fields from the third on.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    user, system, resident = int(fields[11]), int(fields[12]), int(fields[21])
    return (user + system) / _TICKS_PER_S, resident * _PAGE_BYTES


def _named(metric: Metric) -> tuple[str, str]:
    return metric.name, metric.help
