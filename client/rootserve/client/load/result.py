"""From what a load run recorded to its figures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime

from rootserve.client.load.doubts import client_limited, doubts
from rootserve.client.load.options import LoadOptions
from rootserve.client.load.recording import Recording
from rootserve.client.load.report import PERCENTILES, Figures, LoadResult, Part, Trial
from rootserve.client.load.tally import Tally, WindowTally


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


_FIGURES = [each.name for each in fields(Figures)]
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
    tally, stages, asked = window.all, window.stages, options.to_json()
    tells = _tells_attained(options, tally)
    endless = tally.unfinished + tally.errors.total()
    whole = _part("", tally, window_s, tells=tells)
    outcomes = Counter({"OK": whole.succeeded, **whole.errors, "UNFINISHED": whole.unfinished})
    mean = stages.mean() if stages.count else None
    near = {
        name: stages.near(value)
        for name in PERCENTILES
        if mean and (value := getattr(whole.response_time_s, name)) is not None
    }
    result = LoadResult(
        label=options.label,
        **{name: asked[name] for name in ("model", "loop", "concurrency", "rate")},
        started_at=facts.started_at.isoformat(timespec="milliseconds"),
        window_s=window_s,
        interrupted=facts.interrupted,
        **{name: getattr(whole, name) for name in _FIGURES},
        outcomes={code: number for code, number in outcomes.items() if number},
        offered_requests_per_s=whole.requests / window_s if window_s else 0.0,
        response_quantiles_s=tally.response.quantiles(tally.unfinished),
        p99_of_all_s=tally.response.quantile(0.99, endless),
        # Half a request aside, so that no rounding picks the slowest.
        all_but_one_s=tally.response.quantile(1 - 1.5 / max(2, tally.requests), endless),
        late_departures=window.late,
        held_back=window.held_back,
        max_lateness_s=window.max_lateness_s,
        stages_s=mean,
        mean_batch_rows=stages.mean_batch_rows() if mean else None,
        stages_by_percentile_s={**near, "mean": mean} if mean else None,
        stage_times_s={name: times.summary() for name, times in stages.times.items()}
        if mean
        else None,
        batch_rows=dict(sorted(stages.batch_rows.items())),
        time_step_s=recording.series.step_s,
        time_series=recording.series.steps(start_s, facts.end_s),
        by_model=_parts(options.models, window.by_model or [tally], window_s, tells=tells),
        by_server=_parts(options.servers, window.by_server or [tally], window_s, tells=tells),
        trials=trials,
        stable=facts.stable,
        last_answer_s=recording.last_answer_s,
        lost_processes=facts.lost_processes,
        client_cpu_cores=facts.client_cpu_cores,
        histograms={
            "response_time": tally.response.encoded(),
            "service_time": tally.service.encoded(),
        },
        options=asked,
    )
    return replace(result, client_limited=client_limited(result), warnings=tuple(doubts(result)))


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
        trials = [replace(each, counted=n >= first) for n, each in enumerate(trials)]
    return trials


def _tells_attained(options: LoadOptions, tally: Tally) -> bool:
    """Whether there was something to keep: a deadline, a floor, or a variant to choose."""
    return (
        options.has_deadlines
        or options.has_floors
        or bool(options.variants or tally.attained.variants)
    )


def _parts(
    names: Sequence[str], tallies: Sequence[Tally], window_s: float, *, tells: bool
) -> list[Part]:
    pairs = zip(names, tallies, strict=True)
    return [_part(name, tally, window_s, tells=tells) for name, tally in pairs]


def _part(name: str, tally: Tally, window_s: float, *, tells: bool) -> Part:
    return Part(
        name=name,
        requests=tally.requests,
        succeeded=tally.succeeded,
        errors=dict(sorted(tally.errors.items())),
        unfinished=tally.unfinished,
        throughput_requests_per_s=tally.completed / window_s if window_s else 0.0,
        throughput_rows_per_s=tally.completed_rows / window_s if window_s else 0.0,
        response_time_s=tally.response.summary(tally.unfinished),
        service_time_s=tally.service.summary(),
        reasons=dict(sorted(tally.reasons.items())),
        attained=tally.attained.figures(tally.requests) if tells else None,
    )
