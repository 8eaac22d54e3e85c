"""Which figures a load run yields, and what counts into each.

The window. A run has a warm-up and then a measured window of `duration_s`; sending stops at its
end, and what is under way then is waited for.

- Throughput counts the rows of successful requests that were *completed* within the window,
  whenever they were sent, over the window's length. What was sent before and came within makes
  up for what was sent within and came after.
- Times, errors and `requests` count the requests that were *due* within the window, whenever they
  were completed: leaving out those still under way at its end would leave out the slowest.

Times. The response time runs from the instant a request was due, the service time from the
moment it was sent. In a closed loop the two are the same. In an open loop they part when the
client could not send in time (`max_in_flight` reached, or the client short of processor): the
difference is what a user would have waited, and what measuring from the sending hides.
Only successful requests have times. A request that was due but never sent, or was cut off when
the run was interrupted, is `unfinished`: how long it would have taken is not known, only that it
is longer than what was waited for. The percentiles of the response time count it as endless, and a
percentile that falls among the endless is None, not a number that flatters. Minimum, mean and
maximum are those of the answered ones.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from client.load.histogram import LatencyHistogram, LatencySummary
from client.load.options import LoadOptions
from client.wire import Timeline

# Scheduling on a busy machine costs some hundred microseconds; beyond this the client is late.
LATE_S = 0.001


@dataclass(frozen=True, slots=True)
class Stages:
    """Mean seconds of a successful request by stage, and mean rows of the batch it rode in."""

    queue_s: float
    batch_wait_s: float
    compute_s: float
    rest_s: float
    outside_server_s: float
    batch_rows: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How a run stands at one moment."""

    elapsed_s: float
    warming_up: bool
    requests: int
    failed: int
    rows_per_s: float
    p99_s: float | None


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a load run measured; the module's text says what counts into each figure.

    Attributes:
        options: What was asked.
        started_at: When the run began, with its time zone.
        window_s: Length of the measured window; shorter than asked when interrupted.
        interrupted: Whether it was stopped before its time.
        requests: Requests due in the window: successful, failed and unfinished.
        succeeded: Those answered.
        errors: Those refused or failed, by name of their status code.
        unfinished: Those never sent or cut off.
        throughput_rows_per_s: Rows answered per second.
        throughput_requests_per_s: Requests answered per second.
        response_time: From the due instant, seconds; unfinished requests count as endless.
        p99_of_all_s: The response time within which 99 of 100 of all requests were answered,
            failed ones being endless as well; None when more than one in a hundred was not.
        service_time: From the sending, seconds.
        late_departures: Requests that left more than 1 ms after they were due.
        max_lateness_s: The most a request left late.
        stages: Means of the server's timeline; None when it sent none.
        client_cpu_cores: Processor time of this process over the run's time; near 1 the client
            itself is the bottleneck.
    """

    options: LoadOptions
    started_at: datetime
    window_s: float
    interrupted: bool
    requests: int
    succeeded: int
    errors: Mapping[str, int]
    unfinished: int
    throughput_rows_per_s: float
    throughput_requests_per_s: float
    response_time: LatencySummary
    p99_of_all_s: float | None
    service_time: LatencySummary
    late_departures: int
    max_lateness_s: float
    stages: Stages | None
    client_cpu_cores: float


class Recorder:
    """Takes note of each request's fate. Instants are seconds since the run's start."""

    def __init__(self, options: LoadOptions) -> None:
        self._rows = options.rows
        self.start_s = options.warmup_s
        self.end_s = options.warmup_s + options.duration_s
        self.response = LatencyHistogram()
        self.service = LatencyHistogram()
        self.errors: Counter[str] = Counter()
        self.unfinished_count = 0
        self.completed_in_window = 0
        self.late_departures = 0
        self.max_lateness_s = 0.0
        self._answered = 0
        self._stage_sums = [0.0] * 6
        self._staged = 0

    @property
    def succeeded(self) -> int:
        """Successful requests due in the window."""
        return self.service.count

    @property
    def window_s(self) -> float:
        """Length of the measured window, as far as the run got."""
        return max(0.0, self.end_s - self.start_s)

    def stop(self, now_s: float) -> None:
        """End the window now if that is before its time."""
        self.end_s = min(self.end_s, now_s)

    def departed(self, due_s: float, sent_s: float) -> None:
        """A request was sent."""
        lateness_s = sent_s - due_s
        if self._counts(due_s):
            self.late_departures += lateness_s > LATE_S
            self.max_lateness_s = max(self.max_lateness_s, lateness_s)

    def succeeded_at(
        self, due_s: float, sent_s: float, done_s: float, timeline: Timeline | None
    ) -> None:
        """A request was answered."""
        self._answered += 1
        if self.start_s <= done_s < self.end_s:
            self.completed_in_window += 1
        if not self._counts(due_s):
            return
        self.response.record(done_s - due_s)
        self.service.record(done_s - sent_s)
        if timeline is not None:
            self._add_stages(timeline, done_s - sent_s)

    def failed(self, due_s: float, code: str) -> None:
        """A request was refused or failed."""
        if self._counts(due_s):
            self.errors[code] += 1

    def unfinished(self, due_s: float) -> None:
        """A request was sent and cut off."""
        if self._counts(due_s):
            self.unfinished_count += 1

    def never_sent(self, due_s: float) -> None:
        """A request was due and has not left when sending stopped: as late as can be told."""
        self.unfinished(due_s)
        self.departed(due_s, self.end_s)

    def snapshot(self, now_s: float) -> Snapshot:
        """How the run stands now; during the warm-up the rate is that of the warm-up."""
        warming_up = now_s < self.start_s
        answered, since_s = (
            (self._answered, now_s)
            if warming_up
            else (self.completed_in_window, min(now_s, self.end_s) - self.start_s)
        )
        failed = self.errors.total()
        return Snapshot(
            elapsed_s=now_s,
            warming_up=warming_up,
            requests=self.succeeded + failed,
            failed=failed,
            rows_per_s=answered * self._rows / since_s if since_s > 0 else 0.0,
            p99_s=self.response.quantile(0.99),
        )

    def result(
        self,
        options: LoadOptions,
        started_at: datetime,
        *,
        interrupted: bool,
        client_cpu_cores: float,
    ) -> LoadResult:
        """Everything measured."""
        per_s = self.completed_in_window / self.window_s if self.window_s else 0.0
        return LoadResult(
            options=options,
            started_at=started_at,
            window_s=self.window_s,
            interrupted=interrupted,
            requests=self.succeeded + self.errors.total() + self.unfinished_count,
            succeeded=self.succeeded,
            errors=dict(sorted(self.errors.items())),
            unfinished=self.unfinished_count,
            throughput_rows_per_s=per_s * self._rows,
            throughput_requests_per_s=per_s,
            response_time=self.response.summary(self.unfinished_count),
            p99_of_all_s=self.response.quantile(0.99, self.unfinished_count + self.errors.total()),
            service_time=self.service.summary(),
            late_departures=self.late_departures,
            max_lateness_s=self.max_lateness_s,
            stages=self._stages(),
            client_cpu_cores=client_cpu_cores,
        )

    def _counts(self, due_s: float) -> bool:
        return self.start_s <= due_s < self.end_s

    def _add_stages(self, timeline: Timeline, service_s: float) -> None:
        self._staged += 1
        sums = self._stage_sums
        sums[0] += timeline.queue_s
        sums[1] += timeline.batch_wait_s
        sums[2] += timeline.compute_s
        sums[3] += timeline.rest_s
        sums[4] += max(0.0, service_s - timeline.total_s)
        sums[5] += timeline.batch_rows

    def _stages(self) -> Stages | None:
        if not self._staged:
            return None
        return Stages(*(total / self._staged for total in self._stage_sums))
