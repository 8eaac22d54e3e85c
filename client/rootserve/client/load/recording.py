"""Which figures a load run yields, and what counts into each.

The window. A run has a warm-up and then a measured window of `duration_s`, or several of them one
after the other; sending stops at the end, and what is under way then is waited for.

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

Deadlines. A request is in time when it is answered within its deadline from the instant it was due:
what the caller sees. Whether the server kept its promise is told by its own clock, from the arrival
of the request; a promise is also broken when a request is dropped because its deadline passed.
"""

from dataclasses import dataclass
from operator import attrgetter
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rootserve.client.load.attaining import Kept, Promises
from rootserve.client.load.histogram import LatencyHistogram
from rootserve.client.load.options import LoadOptions
from rootserve.client.load.requests import Plan
from rootserve.client.load.tally import Tally, WindowTally
from rootserve.client.load.timeseries import TimeSeries
from rootserve.client.stages import STAGES, TOLD
from rootserve.client.wire import Chosen, Timeline

# Scheduling on a busy machine costs some hundred microseconds; beyond this the client is late.
LATE_S = 0.001
# Events are counted in bulk, which takes numpy a fifth of a millisecond for so many.
_BULK = 256
# One answer: seconds since the run's start, what it was, and of its timeline the total, the rows of its batch
# and the stages that the server tells; these are not numbers where it told none.
_ANSWER = np.dtype(
    [(name, np.float64) for name in ("due_s", "sent_s", "done_s")]
    + [(name, np.int64) for name in ("kind", "server", "variant")]
    + [("accuracy", np.float64)]
    + [(name, np.float64) for name in ("total_s", "batch_rows", *(each.name for each in TOLD))]
)
_NO_VARIANT, _NO_ACCURACY = -1, np.nan
_NO_TIMELINE = (np.nan,) * (2 + len(TOLD))
# The code of a request that was admitted, and whose deadline passed.
_DROPPED = "DEADLINE_EXCEEDED"
_told = attrgetter("total_s", "batch_rows", *(f"{stage.name}_s" for stage in TOLD))


class Recording:
    """What one process recorded; those of several add up exactly."""

    def __init__(self, windows: int, models: int, servers: int, longest_s: float) -> None:
        self.windows = [WindowTally(models, servers) for _ in range(windows)]
        self.series = TimeSeries(longest_s)
        self.last_answer_s: float | None = None

    def merge(self, other: Self) -> None:
        """Add what another one recorded."""
        for mine, theirs in zip(self.windows, other.windows, strict=True):
            mine.merge(theirs)
        self.series.merge(other.series)
        answers = [each for each in (self.last_answer_s, other.last_answer_s) if each is not None]
        self.last_answer_s = max(answers, default=None)


@dataclass(slots=True)
class Progress:
    """How one process stands at one moment; those of several add up.

    `response` has the times of the window, `recent` those of the answers since it was last asked.
    """

    in_flight: int
    answered_rows: int
    window_rows: int
    errors: dict[str, int]
    late: int
    response: LatencyHistogram
    recent: LatencyHistogram

    @classmethod
    def nothing(cls) -> Self:
        """Of no process."""
        return cls(0, 0, 0, {}, 0, LatencyHistogram(), LatencyHistogram())

    def merge(self, other: Self) -> None:
        """Add another process."""
        for name in ("in_flight", "answered_rows", "window_rows", "late"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for code, count in other.errors.items():
            self.errors[code] = self.errors.get(code, 0) + count
        self.response.merge(other.response)
        self.recent.merge(other.recent)


class Recorder:
    """Takes note of each request's fate. Instants are seconds since the run's start."""

    def __init__(self, options: LoadOptions, plan: Plan) -> None:
        models = options.models
        self.start_s = options.warmup_s
        self.end_s = options.longest_s
        self.duration_s = options.duration_s
        windows = max(1, round((self.end_s - self.start_s) / self.duration_s))
        self._recording = Recording(
            windows, len(models), len(options.servers), self.end_s + options.timeout_s
        )
        self._rows = np.array([kind.rows for kind in plan.kinds], float)
        self._models = np.array([models.index(kind.model) for kind in plan.kinds])
        known = [plan.accuracies.get(kind.model) for kind in plan.kinds]
        self._promises = Promises(plan.kinds, known)
        self._timeout_s = options.timeout_s
        # Variants that answered, by the number that stands for them.
        self._variants: dict[str, int] = {}
        self._departures: list[tuple[float, float]] = []
        self._answers: list[tuple[float, ...]] = []
        self._in_flight = self._answered_rows = 0
        self._recent = LatencyHistogram()

    def stop(self, now_s: float) -> None:
        """End the last window now if that is before its time."""
        self.end_s = min(self.end_s, now_s)

    def departed(self, due_s: float, sent_s: float) -> None:
        """A request was sent."""
        self._in_flight += 1
        self._departures.append((due_s, sent_s))
        if len(self._departures) >= _BULK:
            self._count_departures()

    def held_back(self, due_s: float) -> None:
        """A request could not leave when it was due: too many were under way."""
        if window := self._window_at(due_s):
            window.held_back += 1

    def succeeded_at(  # noqa: PLR0913, PLR0917 - all that is known
        self,
        due_s: float,
        sent_s: float,
        done_s: float,
        timeline: Timeline | None,
        kind: int = 0,
        server: int = 0,
        chosen: Chosen | None = None,
    ) -> None:
        """A request was answered."""
        told = _NO_TIMELINE if timeline is None else _told(timeline)
        variant, accuracy = _NO_VARIANT, _NO_ACCURACY
        if chosen is not None:
            variant = self._variants.setdefault(chosen.variant, len(self._variants))
            accuracy = _NO_ACCURACY if chosen.accuracy is None else chosen.accuracy
        self._in_flight -= 1
        self._answers.append((due_s, sent_s, done_s, kind, server, variant, accuracy, *told))
        if len(self._answers) >= _BULK:
            self._count_answers()

    def failed(
        self,
        due_s: float,
        code: str,
        kind: int = 0,
        server: int = 0,
        done_s: float | None = None,
        reason: str = "",
    ) -> None:
        """A request was refused or failed, for the reason that the server tells beside the code."""
        self._in_flight -= 1
        self._recording.series.add_failed(due_s if done_s is None else done_s, code)
        if window := self._window_at(due_s):
            # Beyond the timeout of the call it would be this client that gave it up.
            promised = self._promises.deadlines_s[kind] < self._timeout_s
            for tally in window.tallies(int(self._models[kind]), server):
                tally.errors[code] += 1
                tally.reasons[reason or code] += 1
                tally.attained.broken += bool(promised and code == _DROPPED)

    def unfinished(self, due_s: float, kind: int = 0, server: int = 0) -> None:
        """A request was sent and cut off."""
        if window := self._window_at(due_s):
            for tally in window.tallies(int(self._models[kind]), server):
                tally.unfinished += 1

    def never_sent(self, due_s: float, kind: int = 0) -> None:
        """A request was due and has not left when sending stopped: as late as can be told."""
        if window := self._window_at(due_s):
            window.late += self.end_s - due_s > LATE_S
            window.max_lateness_s = max(window.max_lateness_s, self.end_s - due_s)
            # It was for no server yet.
            for tally in window.tallies(int(self._models[kind]), len(window.by_server)):
                tally.unfinished += 1

    def recording(self) -> Recording:
        """Everything recorded."""
        self._count_departures()
        self._count_answers()
        return self._recording

    def answered_in(self, window: int) -> LatencyHistogram:
        """Response times of the requests that were answered within one of the windows."""
        return self.recording().windows[window].answered

    def progress(self) -> Progress:
        """How it stands now."""
        recording = self.recording()
        recent, self._recent = self._recent, LatencyHistogram()
        response = LatencyHistogram()
        errors: dict[str, int] = {}
        window_rows = late = 0
        for window in recording.windows:
            response.merge(window.all.response)
            window_rows += window.all.completed_rows
            late += window.late
            for code, count in window.all.errors.items():
                errors[code] = errors.get(code, 0) + count
        return Progress(
            in_flight=self._in_flight,
            answered_rows=self._answered_rows,
            window_rows=window_rows,
            errors=errors,
            late=late,
            response=response,
            recent=recent,
        )

    def _window_at(self, instant_s: float) -> WindowTally | None:
        if not self.start_s <= instant_s < self.end_s:
            return None
        number = int((instant_s - self.start_s) / self.duration_s)
        return self._recording.windows[min(number, len(self._recording.windows) - 1)]

    def _windows_of(self, instants_s: NDArray[np.float64]) -> NDArray[np.int64]:
        """Number of the window that each instant falls into, -1 outside of all."""
        numbers = ((instants_s - self.start_s) / self.duration_s).astype(np.int64)
        inside = (instants_s >= self.start_s) & (instants_s < self.end_s)
        return np.where(inside, np.minimum(numbers, len(self._recording.windows) - 1), -1)

    def _count_departures(self) -> None:
        if not self._departures:
            return
        due_s, sent_s = np.array(self._departures).T
        self._departures.clear()
        self._recording.series.add_departed(due_s, sent_s, LATE_S)
        late_s = sent_s - due_s
        windows = self._windows_of(due_s)
        for number in np.unique(windows[windows >= 0]):
            window, mine = self._recording.windows[number], late_s[windows == number]
            window.late += int((mine > LATE_S).sum())
            window.max_lateness_s = max(window.max_lateness_s, float(mine.max()))

    def _count_answers(self) -> None:
        if not self._answers:
            return
        answers = np.array(self._answers, _ANSWER)
        self._answers.clear()
        due_s, done_s = answers["due_s"], answers["done_s"]
        rows = self._rows[answers["kind"]]
        self._answered_rows += int(rows.sum())
        latest_s = float(done_s.max())
        before_s = self._recording.last_answer_s
        self._recording.last_answer_s = latest_s if before_s is None else max(before_s, latest_s)
        self._recent.record_all(done_s - due_s)
        self._recording.series.add_answered(done_s, done_s - due_s, rows)
        kept = self._promises.kept(answers)
        series = self._recording.series
        series.add_in_time(due_s[kept.in_time], kept.accuracies[kept.in_time])
        for name, chosen in self._by_variant(answers):
            series.add_variant(name, done_s[chosen])
        due, done = self._windows_of(due_s), self._windows_of(done_s)
        for number in np.unique([*due, *done]):
            if number >= 0:
                window = self._recording.windows[number]
                self._count_into(window, answers, due == number, done == number)
                self._count_kept(window, answers, kept, due == number)

    def _count_into(
        self,
        window: WindowTally,
        answers: NDArray[np.void],
        due: NDArray[np.bool_],
        done: NDArray[np.bool_],
    ) -> None:
        response_s, service_s = (
            answers["done_s"] - answers[since] for since in ("due_s", "sent_s")
        )
        rows = self._rows[answers["kind"]]
        for tally, chosen in self._groups(window, answers):
            mine = due & chosen
            tally.add_answered(response_s[mine], service_s[mine])
            tally.add_completed(rows[done & chosen])
        window.answered.record_all(response_s[done])
        told = due & ~np.isnan(answers["total_s"])
        if told.any():
            window.stages.add(response_s[told], _stages(answers[told]), answers["batch_rows"][told])

    def _groups(
        self, window: WindowTally, answers: NDArray[np.void]
    ) -> list[tuple[Tally, NDArray[np.bool_]]]:
        """Each tally of the window, and which answers count into it."""
        models = self._models[answers["kind"]]
        return [
            (window.all, np.ones(len(answers), np.bool_)),
            *((tally, models == n) for n, tally in enumerate(window.by_model)),
            *((tally, answers["server"] == n) for n, tally in enumerate(window.by_server)),
        ]

    def _by_variant(self, answers: NDArray[np.void]) -> list[tuple[str, NDArray[np.bool_]]]:
        """Which answers each variant computed."""
        pairs = ((name, answers["variant"] == n) for name, n in self._variants.items())
        return [(name, chosen) for name, chosen in pairs if chosen.any()]

    def _count_kept(
        self, window: WindowTally, answers: NDArray[np.void], kept: Kept, due: NDArray[np.bool_]
    ) -> None:
        by_variant = self._by_variant(answers)
        for tally, chosen in self._groups(window, answers):
            mine = due & chosen
            tally.attained.add(kept.some(mine))
            for name, computed in by_variant:
                if number := int((mine & computed).sum()):
                    tally.attained.variants[name] += number


def _stages(answers: NDArray[np.void]) -> NDArray[np.float64]:
    """Seconds of all stages [N, S], in their order."""
    total_s = answers["total_s"]
    named_s = sum(answers[stage.name] for stage in TOLD if stage.within is None)
    found = {
        "client_wait": answers["sent_s"] - answers["due_s"],
        "outside_server": answers["done_s"] - answers["sent_s"] - total_s,
        "rest": total_s - named_s,
    } | {stage.name: answers[stage.name] for stage in TOLD}
    seconds: NDArray[np.float64] = np.column_stack([found[stage.name] for stage in STAGES])
    return np.maximum(seconds, 0.0)
