"""A simulated run over time: what came, what was met, who computed it and in what batches."""

from dataclasses import dataclass

from rootserve.client.simulation.world import Outcome, Run

INTERVALS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A part of a run: requests that came in it, of these those that were met, and its batches.

    `rows` are those that each variant computed in batches that began in it, `mean_rows` those of a batch.
    """

    begin_s: float
    end_s: float
    offered: int
    met: int
    rows: dict[str, int]
    mean_rows: float


def series_of(run: Run, count: int = INTERVALS) -> list[Interval]:
    """The run in so many intervals of the time in which requests came."""
    last_s = max((arrival.at_s for arrival in run.arrivals), default=0.0)
    step_s = max(last_s, 1e-9) / count
    offered, met, batches = [0] * count, [0] * count, [0] * count
    rows: list[dict[str, int]] = [{} for _ in range(count)]
    for arrival, fate in zip(run.arrivals, run.fates, strict=True):
        place = min(count - 1, int(arrival.at_s / step_s))
        offered[place] += 1
        met[place] += fate.outcome is Outcome.MET
    for batch in run.batches:
        place = min(count - 1, int(batch.began_s / step_s))
        batches[place] += 1
        rows[place][batch.variant] = rows[place].get(batch.variant, 0) + batch.rows
    return [
        Interval(
            begin_s=place * step_s,
            end_s=(place + 1) * step_s,
            offered=offered[place],
            met=met[place],
            rows=rows[place],
            mean_rows=sum(rows[place].values()) / max(1, batches[place]),
        )
        for place in range(count)
    ]
