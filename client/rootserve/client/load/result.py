"""What a load run measured, as plain values."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rootserve.client.load.histogram import LatencySummary
from rootserve.client.load.options import LoadOptions
from rootserve.client.load.recording import Recording
from rootserve.client.load.tally import StageTally, Tally, WindowTally


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
class StageDetail:
    """Where the time went, stage by stage (`tally.STAGES`), in seconds.

    Attributes:
        by_percentile: For "p50", "p90", "p99", "p999" and "mean" the mean stages of the requests
            about there; they add up to their response time.
        times: Each stage's own percentiles, which do not add up.
        batch_rows: Requests by the rows of the batch they rode in.
    """

    by_percentile: Mapping[str, Mapping[str, float]]
    times: Mapping[str, LatencySummary]
    batch_rows: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Part:
    """The figures of one model or one server of several."""

    name: str
    requests: int
    succeeded: int
    errors: Mapping[str, int]
    unfinished: int
    throughput_requests_per_s: float
    throughput_rows_per_s: float
    response_time: LatencySummary
    service_time: LatencySummary


@dataclass(frozen=True, slots=True)
class Trial:
    """One measured window: requests answered in it per second, and their p99."""

    start_s: float
    end_s: float
    throughput_requests_per_s: float
    p99_s: float | None
    counted: bool = True


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a load run measured; `rootserve.client.load.recording` says what counts into each figure.

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
        client_cpu_cores: Processor time of all client processes over the run's time; near their
            number the client itself is the bottleneck.
        held_back: Requests that had to wait because `max_in_flight` others were under way.
        response_quantiles: Pairs (share, seconds) for a plot of the distribution.
        stage_detail: The stages by percentile; None when the server sent no timeline.
        trials: The windows measured.
        stable: Whether throughput and p99 became stable; None when nobody asked.
        by_model: The figures of each model.
        by_server: The figures of each server.
        time_series: One object per `time_step_s` seconds, as in docs/load.md.
        time_step_s: Seconds of each.
        histograms: Response and service time, encoded as HdrHistogram V2.
        last_answer_s: When the last answer came, in seconds since the start.
        lost_processes: Client processes that ended before their time; their figures are missing.
        label: The load in a few words.
        all_but_one_s: The response time within which all requests but the slowest were answered,
            failed ones being endless; None when more than one was not.
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
    held_back: int = 0
    response_quantiles: Sequence[tuple[float, float]] = ()
    stage_detail: StageDetail | None = None
    trials: Sequence[Trial] = ()
    stable: bool | None = None
    by_model: Sequence[Part] = ()
    by_server: Sequence[Part] = ()
    time_series: Sequence[Mapping[str, Any]] = ()
    time_step_s: int = 1
    histograms: Mapping[str, str] = field(default_factory=dict, repr=False)
    last_answer_s: float | None = None
    lost_processes: int = 0
    label: str = ""
    all_but_one_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a run tells beside its recording.

    Attributes:
        started_at: When it began, with its time zone.
        end_s: End of the last window, in seconds since the start.
        interrupted: Whether that was before its time.
        stable: See `LoadResult`.
        client_cpu_cores: See `LoadResult`.
        lost_processes: See `LoadResult`.
    """

    started_at: datetime
    end_s: float
    interrupted: bool
    client_cpu_cores: float
    stable: bool | None = None
    lost_processes: int = 0


# Figures of a stable run are those of the last three windows, which agree.
STABLE_TRIALS = 3


def result_of(options: LoadOptions, recording: Recording, facts: RunFacts) -> LoadResult:
    """The figures of a recording."""
    trials = _trials(options, recording, facts)
    counted = [
        window for window, trial in zip(recording.windows, trials, strict=False) if trial.counted
    ]
    window = WindowTally(len(options.models), len(options.servers))
    for each in counted:
        window.merge(each)
    window_s = sum(trial.end_s - trial.start_s for trial in trials if trial.counted)
    start_s = min((trial.start_s for trial in trials if trial.counted), default=options.warmup_s)
    tally = window.all
    endless = tally.unfinished + tally.errors.total()
    whole = _part("", tally, window_s)
    return LoadResult(
        options=options,
        started_at=facts.started_at,
        window_s=window_s,
        interrupted=facts.interrupted,
        requests=whole.requests,
        succeeded=whole.succeeded,
        errors=whole.errors,
        unfinished=whole.unfinished,
        throughput_rows_per_s=whole.throughput_rows_per_s,
        throughput_requests_per_s=whole.throughput_requests_per_s,
        response_time=whole.response_time,
        p99_of_all_s=tally.response.quantile(0.99, endless),
        service_time=whole.service_time,
        late_departures=window.late,
        max_lateness_s=window.max_lateness_s,
        stages=_stages(window.stages),
        client_cpu_cores=facts.client_cpu_cores,
        held_back=window.held_back,
        response_quantiles=tally.response.quantiles(tally.unfinished),
        stage_detail=_stage_detail(window.stages, whole.response_time),
        trials=trials,
        stable=facts.stable,
        by_model=_parts(options.models, window.by_model or [tally], window_s),
        by_server=_parts(options.servers, window.by_server or [tally], window_s),
        time_series=recording.series.to_json(start_s, facts.end_s),
        time_step_s=recording.series.step_s,
        histograms={
            "response_time": tally.response.encoded(),
            "service_time": tally.service.encoded(),
        },
        last_answer_s=recording.last_answer_s,
        lost_processes=facts.lost_processes,
        label=options.label,
        # Half a request aside, so that no rounding picks the slowest.
        all_but_one_s=tally.response.quantile(1 - 1.5 / max(2, tally.requests), endless),
    )


def _trials(options: LoadOptions, recording: Recording, facts: RunFacts) -> list[Trial]:
    trials: list[Trial] = []
    for n, window in enumerate(recording.windows):
        start_s = options.warmup_s + n * options.duration_s
        end_s = min(start_s + options.duration_s, facts.end_s)
        if end_s <= start_s:
            break
        p99_s = window.answered.quantile(0.99)
        trials.append(Trial(start_s, end_s, window.answered.count / (end_s - start_s), p99_s))
    if facts.stable:
        first = len(trials) - STABLE_TRIALS
        trials = [
            Trial(each.start_s, each.end_s, each.throughput_requests_per_s, each.p99_s, n >= first)
            for n, each in enumerate(trials)
        ]
    return trials


def _parts(names: Sequence[str], tallies: Sequence[Tally], window_s: float) -> list[Part]:
    return [_part(name, tally, window_s) for name, tally in zip(names, tallies, strict=True)]


def _part(name: str, tally: Tally, window_s: float) -> Part:
    return Part(
        name=name,
        requests=tally.requests,
        succeeded=tally.succeeded,
        errors=dict(sorted(tally.errors.items())),
        unfinished=tally.unfinished,
        throughput_requests_per_s=tally.completed / window_s if window_s else 0.0,
        throughput_rows_per_s=tally.completed_rows / window_s if window_s else 0.0,
        response_time=tally.response.summary(tally.unfinished),
        service_time=tally.service.summary(),
    )


def _stages(tally: StageTally) -> Stages | None:
    if not tally.count:
        return None
    mean = tally.mean()
    return Stages(
        queue_s=mean["queue"],
        batch_wait_s=mean["batch_wait"],
        compute_s=mean["compute"],
        rest_s=mean["rest"],
        outside_server_s=mean["outside_server"],
        batch_rows=tally.mean_batch_rows(),
    )


def _stage_detail(tally: StageTally, response: LatencySummary) -> StageDetail | None:
    if not tally.count:
        return None
    percentiles = {"p50": response.p50, "p90": response.p90, "p99": response.p99}
    percentiles["p999"] = response.p999
    near = {name: tally.near(value) for name, value in percentiles.items() if value is not None}
    return StageDetail(
        by_percentile={**near, "mean": tally.mean()},
        times={stage: times.summary() for stage, times in tally.times.items()},
        batch_rows=Counter(dict(sorted(tally.batch_rows.items()))),
    )
