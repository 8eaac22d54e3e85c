"""One variant while it is measured: what has been found of it so far."""

import statistics
from dataclasses import dataclass, field

from rootserve.client.catalog import Model
from rootserve.client.choice.document import Variant
from rootserve.client.load.report import LoadResult
from rootserve.client.load.seeking import RateSearch
from rootserve.client.table8.rows import CATALOGUE

# Bytes of a parameter, by the precision that it is computed in.
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


@dataclass
class Candidate:
    """What has been found of one variant.

    Attributes:
        model: As the server tells of it.
        compute_rows: Images of the batches whose computation is timed.
        search: For its highest rate; None before its first run.
        callers: That run: a closed loop.
        results: The runs of the search.
        times_ms: Milliseconds per image, one for each turn.
        correct: How many classes were right, of each chunk of the images that measure the accuracy.
        failure: Why it is measured no more.
    """

    model: Model
    compute_rows: int
    search: RateSearch | None = None
    callers: LoadResult | None = None
    results: list[LoadResult] = field(default_factory=list)
    times_ms: list[float] = field(default_factory=list)
    correct: list[int] = field(default_factory=list)
    failure: str | None = None

    @property
    def name(self) -> str:
        """Of the model."""
        return self.model.name

    @property
    def is_settled(self) -> bool:
        """Whether nothing more is to be measured of it."""
        return self.failure is not None or (
            self.search is not None and self.search.next_run() is None
        )

    def variant(self, chunks: int, images: int) -> Variant:
        """What is known of it; so many chunks with so many images in all were sent to every variant."""
        model, found = self.model, self.search.found if self.search else None
        measured = 0 < chunks <= len(self.correct)
        size = _BYTES.get(model.precision or "")
        steps = self.search.steps if self.search else []
        return Variant(
            name=model.name,
            family=model.family,
            topology=model.topology,
            params=model.params,
            flops=model.flops_paper,
            engine=model.engine,
            precision=model.precision,
            accuracy=sum(self.correct[:chunks]) / images if measured else model.accuracy,
            accuracy_source=self._source(images if measured else 0),
            accuracy_images=images if measured else None,
            weights_bytes=size * model.params if size else None,
            batch_rows=model.batch_rows,
            compute_ms=statistics.median(self.times_ms) if self.times_ms else None,
            compute_rows=self.compute_rows if self.times_ms else None,
            callers_requests_per_s=self.callers.throughput_requests_per_s if self.callers else None,
            limit=found.limit if found else None,
            low=found.low if found else None,
            high=found.high if found else None,
            held=found.rate if found else None,
            lowest_missed=found.lowest_missed if found else None,
            complete=bool(found and found.complete),
            client_limited=any(
                self.results[at].client_limited
                for at, step in enumerate(steps)
                if step.held is False
            ),
            note=self._note(),
            steps=tuple(steps),
        )

    def _source(self, images: int) -> str | None:
        if images:
            return f"{images:,} images through the service"
        return None if self.model.accuracy is None else CATALOGUE

    def _note(self) -> str | None:
        notes = [] if self.failure is None else [self.failure]
        if not self.model.trained:
            notes.append("random weights: no accuracy")
        found = self.search.found if self.search else None
        if found is not None and found.complete:
            if found.rate is None and found.lowest_missed is not None:
                notes.append("no rate was found that holds the objective")
        elif self.failure is None:
            notes.append("search not finished")
        return "; ".join(notes) or None
