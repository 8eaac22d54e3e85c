"""One reading of a server's /metrics: the figures of it that the view needs, as plain values."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from rootserve.client.errors import MalformedAnswer


@dataclass(frozen=True, slots=True)
class Histogram:
    """Cumulative counts by upper bound, the last one infinite, and the sum of what was counted."""

    bounds: tuple[float, ...] = (math.inf,)
    counts: tuple[float, ...] = (0.0,)
    total: float = 0.0

    @property
    def count(self) -> float:
        """How often something was counted."""
        return self.counts[-1]


EMPTY = Histogram()


@dataclass(frozen=True, slots=True)
class ModelSample:
    """What is told of one model. Counters since the server started, gauges of this moment."""

    ready: bool
    latency: Histogram
    """Of answered requests, in seconds."""
    batch_rows: Histogram
    answered_rows: float
    refused: float
    queued_rows: float
    in_flight_rows: float
    weights: str = ""


@dataclass(frozen=True, slots=True)
class WorkerSample:
    """What is told of one worker. Counters since the server started."""

    device: str
    up: bool
    restarts: float
    busy_s: float
    memory_bytes: float | None


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading. ``at_s`` is on any clock that does not go back."""

    at_s: float
    started_s: float
    """When the server process started, Unix time."""
    version: str
    serving: bool
    models: Mapping[str, ModelSample]
    workers: Mapping[str, WorkerSample]


_Labels = Mapping[str, str]


class _Exposition:
    """The samples of a text exposition by name."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[tuple[_Labels, float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples[sample.name].append((sample.labels, sample.value))

    def by_label(self, name: str, label: str, **wanted: str) -> dict[str, float]:
        """Sums of the values by one label."""
        sums: dict[str, float] = defaultdict(float)
        for labels, value in self._matching(name, wanted):
            sums[labels.get(label, "")] += value
        return sums

    def value(self, name: str, default: float = 0.0) -> float:
        """The value of a metric without labels."""
        return next((value for _, value in self._samples.get(name, ())), default)

    def labels(self, name: str) -> list[_Labels]:
        """The labels of each series."""
        return [labels for labels, _ in self._samples.get(name, ())]

    def histograms(self, name: str, label: str, **wanted: str) -> dict[str, Histogram]:
        """Histograms by one label."""
        buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
        for labels, value in self._matching(f"{name}_bucket", wanted):
            buckets[labels.get(label, "")][float(labels["le"])] += value
        totals = self.by_label(f"{name}_sum", label, **wanted)
        return {
            key: Histogram(
                tuple(sorted(counts)),
                tuple(counts[bound] for bound in sorted(counts)),
                totals.get(key, 0.0),
            )
            for key, counts in buckets.items()
        }

    def _matching(self, name: str, wanted: _Labels) -> Iterator[tuple[_Labels, float]]:
        for labels, value in self._samples.get(name, ()):
            if all(labels.get(key) == wish for key, wish in wanted.items()):
                yield labels, value


def read_sample(text: str, at_s: float) -> Sample:
    """Read what a server answered to GET /metrics at `at_s`.

    Raises:
        MalformedAnswer: It is no text exposition, or not one of rootserve-server.
    """
    try:
        told = _Exposition(text)
        builds = told.labels("rootserve_build_info")
        ready = told.by_label("rootserve_model_ready", "model")
        latency = told.histograms("rootserve_request_seconds", "model", outcome="ok")
        batch_rows = told.histograms("rootserve_batch_rows", "model")
    except (KeyError, ValueError) as error:
        raise MalformedAnswer(f"what it answers are no metrics: {error!r}") from error
    if not builds:
        raise MalformedAnswer("its metrics are not those of rootserve-server")
    rows = told.by_label("rootserve_rows_total", "model")
    refused = told.by_label("rootserve_refusals_total", "model")
    queued = told.by_label("rootserve_rows_queued", "model")
    in_flight = told.by_label("rootserve_rows_in_flight", "model")
    restarts = told.by_label("rootserve_worker_restarts_total", "worker")
    busy = told.by_label("rootserve_worker_busy_seconds_total", "worker")
    memory = told.by_label("rootserve_worker_resident_memory_bytes", "worker")
    up = told.by_label("rootserve_worker_up", "worker")
    weights = {
        each.get("model", ""): each.get("weights", "")
        for each in told.labels("rootserve_model_weights_info")
    }
    devices = {
        each["worker"]: each.get("device", "") for each in told.labels("rootserve_worker_up")
    }
    return Sample(
        at_s=at_s,
        started_s=told.value("process_start_time_seconds"),
        version=builds[0].get("version", ""),
        serving=told.value("rootserve_serving") == 1,
        models={
            name: ModelSample(
                ready=ready[name] == 1,
                latency=latency.get(name, EMPTY),
                batch_rows=batch_rows.get(name, EMPTY),
                answered_rows=rows.get(name, 0.0),
                refused=refused.get(name, 0.0),
                queued_rows=queued.get(name, 0.0),
                in_flight_rows=in_flight.get(name, 0.0),
                weights=weights.get(name, ""),
            )
            for name in ready
        },
        workers={
            name: WorkerSample(
                device=devices[name],
                up=up[name] == 1,
                restarts=restarts.get(name, 0.0),
                busy_s=busy.get(name, 0.0),
                memory_bytes=memory.get(name),
            )
            for name in up
        },
    )
