"""What was counted of a set of requests. Tallies of several processes or windows add up exactly."""

import math
from collections import Counter
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rootserve.client.load.attaining import AttainedTally
from rootserve.client.load.histogram import LatencyHistogram, bucket_of
from rootserve.client.stages import STAGES

# Requests whose response times lie within the same fortieth are averaged by stage.
_BAND = math.log(1.025)
_BANDS = int(math.log(24 * 3600e6) / _BAND) + 2


class Tally:
    """Requests and their times."""

    def __init__(self) -> None:
        self.response = LatencyHistogram()
        self.service = LatencyHistogram()
        self.errors: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.attained = AttainedTally()
        self.unfinished = 0
        self.completed = 0
        self.completed_rows = 0

    @property
    def succeeded(self) -> int:
        """Those answered."""
        return self.service.count

    @property
    def requests(self) -> int:
        """All of them."""
        return self.succeeded + self.errors.total() + self.unfinished

    def add_answered(self, response_s: NDArray[np.float64], service_s: NDArray[np.float64]) -> None:
        """Add answered requests, their times as [N]."""
        self.response.record_all(response_s)
        self.service.record_all(service_s)

    def add_completed(self, rows: NDArray[np.float64]) -> None:
        """Add requests answered within the window, whenever they were due; their rows as [N]."""
        self.completed += len(rows)
        self.completed_rows += int(rows.sum())

    def merge(self, other: Self) -> None:
        """Add what another one counted."""
        self.response.merge(other.response)
        self.service.merge(other.service)
        self.errors.update(other.errors)
        self.reasons.update(other.reasons)
        self.attained.merge(other.attained)
        self.unfinished += other.unfinished
        self.completed += other.completed
        self.completed_rows += other.completed_rows


class StageTally:
    """Where the time of answered requests went, as the server's timelines tell."""

    def __init__(self) -> None:
        self.times = {stage.name: LatencyHistogram() for stage in STAGES}
        self.batch_rows: Counter[int] = Counter()
        # By band of the response time: sum of each stage, and the number of requests.
        self._bands = np.zeros((_BANDS, len(STAGES) + 1))

    @property
    def count(self) -> int:
        """Requests with a timeline."""
        return self.times["queue"].count

    def add(
        self,
        response_s: NDArray[np.float64],
        stages_s: NDArray[np.float64],
        batch_rows: NDArray[np.float64],
    ) -> None:
        """Add requests: response times [N], stages [N, S] in the order of `STAGES`, rows [N]."""
        buckets = bucket_of(stages_s)
        for n, stage in enumerate(STAGES):
            self.times[stage.name].record_all(stages_s[:, n], buckets[:, n])
        rows, counts = np.unique(batch_rows.astype(np.int64), return_counts=True)
        self.batch_rows.update(dict(zip(rows.tolist(), counts.tolist(), strict=True)))
        ones = np.ones((len(stages_s), 1))
        np.add.at(self._bands, _bands_of(response_s), np.hstack([stages_s, ones]))

    def mean(self) -> dict[str, float]:
        """Mean seconds of each stage."""
        return {stage: times.sum_s / times.count for stage, times in self.times.items()}

    def near(self, response_s: float) -> dict[str, float]:
        """Mean seconds of each stage of the requests whose response time is about this."""
        filled = np.flatnonzero(self._bands[:, -1])
        band = filled[np.argmin(np.abs(filled - _bands_of(np.array([response_s]))[0]))]
        sums = self._bands[band]
        return {stage.name: float(sums[n] / sums[-1]) for n, stage in enumerate(STAGES)}

    def mean_batch_rows(self) -> float:
        """Mean rows of the batch a request rode in."""
        return sum(rows * n for rows, n in self.batch_rows.items()) / self.batch_rows.total()

    def merge(self, other: Self) -> None:
        """Add what another one counted."""
        for stage, times in self.times.items():
            times.merge(other.times[stage])
        self.batch_rows.update(other.batch_rows)
        self._bands += other._bands


def _bands_of(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    bands: NDArray[np.int64] = (np.log(np.maximum(seconds * 1e6, 1)) / _BAND).astype(np.int64)
    return np.minimum(bands, _BANDS - 1)


class WindowTally:
    """Everything counted of one window; by model and by server where there are several."""

    def __init__(self, models: int, servers: int) -> None:
        self.all = Tally()
        self.by_model = [Tally() for _ in range(models if models > 1 else 0)]
        self.by_server = [Tally() for _ in range(servers if servers > 1 else 0)]
        self.stages = StageTally()
        # Of those answered within the window, whenever they were due: what a window's end knows.
        self.answered = LatencyHistogram()
        self.late = 0
        self.held_back = 0
        self.max_lateness_s = 0.0

    def tallies(self, model: int, server: int) -> list[Tally]:
        """All the tallies that count a request for this model and server."""
        models = self.by_model[model : model + 1]
        return [self.all, *models, *self.by_server[server : server + 1]]

    def merge(self, other: Self) -> None:
        """Add what another one counted."""
        self.all.merge(other.all)
        for mine, theirs in zip(
            [*self.by_model, *self.by_server], [*other.by_model, *other.by_server], strict=True
        ):
            mine.merge(theirs)
        self.stages.merge(other.stages)
        self.answered.merge(other.answered)
        self.late += other.late
        self.held_back += other.held_back
        self.max_lateness_s = max(self.max_lateness_s, other.max_lateness_s)
