"""What a simulated run amounts to: attainment against what was offered, accuracy, promises, predictions."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rootserve.client.simulation.world import Done, Fate, Outcome, Run
from rootserve.server.core.family import Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The figures of a run. Shares are 0..1, of the requests that were offered unless said otherwise.

    Attributes:
        offered: Requests that came.
        duration_s: From the first coming to the last end.
        attainment: Answered by their deadline, or at all if they had none.
        mean_accuracy: Of what was met, of the variants that computed it; None if nothing was.
        accuracy_goodput: The sum of those accuracies over all that was offered.
        outcomes: Requests by what became of them.
        refused: Share that was refused, by reason.
        floor_violations: Requests computed by a variant below their floor or not among those allowed.
        admitted: Requests that were taken.
        broken_promises: Of those with a deadline that were taken, the share that was not answered in time.
        rows_by_variant: Rows that each variant computed.
        mean_rows: Rows of a batch.
        switches_per_s: How often in a second a worker went from one variant to another.
        busy: Share of the workers' time in which they computed.
        coverage: Of the batches whose time was predicted, the share that took no longer; None without any.
        error_p50: What batches took over what was predicted at most, less 1: the median.
        error_p90: The same, which nine of ten are below.
        error_p99: The same, which 99 of 100 are below.
        decision_p50_s: What an offer or poll of the scheduler took here; None if it was not timed.
        decision_p99_s: The same, which 99 of 100 are below.
        response_p50_s: From coming to answer, of what was answered.
        response_p99_s: The same, which 99 of 100 of all offered are below; None if fewer were answered.
        attainment_by_caller: Where there are several.
    """

    offered: int
    duration_s: float
    attainment: float
    mean_accuracy: float | None
    accuracy_goodput: float
    outcomes: Mapping[str, int]
    refused: Mapping[str, float]
    floor_violations: int
    admitted: int
    broken_promises: float
    rows_by_variant: Mapping[str, int]
    mean_rows: float
    switches_per_s: float
    busy: float
    coverage: float | None
    error_p50: float | None
    error_p90: float | None
    error_p99: float | None
    decision_p50_s: float | None
    decision_p99_s: float | None
    response_p50_s: float | None
    response_p99_s: float | None
    attainment_by_caller: Mapping[str, float] = field(default_factory=dict)


def summary_of(run: Run, members: Sequence[Member], workers: int = 1) -> Summary:
    """The figures of `run`, of a family of `members` on so many workers."""
    known = {member.variant: member for member in members}
    pairs = list(zip(run.arrivals, run.fates, strict=True))
    outcomes = Counter(fate.outcome for fate in run.fates)
    gained = [
        known[run.batches[fate.batch].variant].accuracy
        for fate in run.fates
        if fate.outcome is Outcome.MET and fate.batch is not None
    ]
    offered = len(pairs)
    promised = [
        fate
        for arrival, fate in pairs
        if fate.outcome is not Outcome.REFUSED and arrival.deadline_s < math.inf
    ]
    broken = sum(fate.outcome is not Outcome.MET for fate in promised)
    refusals = Counter(fate.why for fate in run.fates if fate.outcome is Outcome.REFUSED)
    rows: Counter[str] = Counter()
    for batch in run.batches:
        rows[batch.variant] += batch.rows
    errors = [
        (batch.ended_s - batch.began_s) / batch.predicted_s - 1.0
        for batch in run.batches
        if batch.predicted_s
    ]
    duration_s = max(run.ended_s, 1e-9)
    p50, p90, p99 = _quantiles(errors, 0.5, 0.9, 0.99)
    decided_p50, decided_p99 = _quantiles(run.decisions_s, 0.5, 0.99)
    answered = [fate.ended_s - arrival.at_s for arrival, fate in pairs if fate.batch is not None]
    endless = [*answered, *[math.inf] * (offered - len(answered))]
    busy_s = sum(batch.ended_s - batch.began_s for batch in run.batches)
    return Summary(
        offered=offered,
        duration_s=duration_s,
        attainment=len(gained) / max(offered, 1),
        mean_accuracy=sum(gained) / len(gained) if gained else None,
        accuracy_goodput=sum(gained) / max(offered, 1),
        outcomes={outcome.value: outcomes[outcome] for outcome in Outcome if outcomes[outcome]},
        refused={why: number / offered for why, number in sorted(refusals.items())},
        floor_violations=_violations(run, known),
        admitted=offered - outcomes[Outcome.REFUSED],
        broken_promises=broken / max(len(promised), 1),
        rows_by_variant=dict(rows.most_common()),
        mean_rows=sum(rows.values()) / max(len(run.batches), 1),
        switches_per_s=_switches(run.batches) / duration_s,
        busy=busy_s / duration_s / workers,
        coverage=sum(error <= 0 for error in errors) / len(errors) if errors else None,
        error_p50=p50,
        error_p90=p90,
        error_p99=p99,
        decision_p50_s=decided_p50,
        decision_p99_s=decided_p99,
        response_p50_s=_quantiles(answered, 0.5)[0],
        response_p99_s=_finite(_quantiles(endless, 0.99, whole=True)[0]),
        attainment_by_caller=_by_caller(run),
    )


def _by_caller(run: Run) -> dict[str, float]:
    offered = Counter(arrival.caller for arrival in run.arrivals)
    met = Counter(
        arrival.caller
        for arrival, fate in zip(run.arrivals, run.fates, strict=True)
        if fate.outcome is Outcome.MET
    )
    if len(offered) < 2:
        return {}
    return {caller: met[caller] / number for caller, number in sorted(offered.items())}


def _violations(run: Run, known: Mapping[str, Member]) -> int:
    def wrong(number: int, fate: Fate) -> bool:
        if fate.batch is None:
            return False
        arrival, member = run.arrivals[number], known[run.batches[fate.batch].variant]
        return member.accuracy < arrival.floor or (
            bool(arrival.allowed) and member.variant not in arrival.allowed
        )

    return sum(wrong(number, fate) for number, fate in enumerate(run.fates))


def _switches(batches: Sequence[Done]) -> int:
    by_worker: dict[str, list[str]] = {}
    for batch in batches:
        by_worker.setdefault(batch.worker, []).append(batch.variant)
    return sum(
        before != after
        for variants in by_worker.values()
        for before, after in itertools.pairwise(variants)
    )


def _quantiles(
    values: Sequence[float], *shares: float, whole: bool = False
) -> tuple[float | None, ...]:
    """Quantiles; `whole`: one of the values, and not between two, one of which may be endless."""
    if not values:
        return tuple(None for _ in shares)
    ordered = np.sort(np.asarray(values, np.float64))
    if whole:
        return tuple(float(ordered[math.ceil(share * (len(ordered) - 1))]) for share in shares)
    return tuple(float(np.quantile(ordered, share)) for share in shares)


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value
