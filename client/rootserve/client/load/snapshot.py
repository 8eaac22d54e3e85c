"""How a run stands at one moment, for whoever watches it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rootserve.client.load.options import LoadOptions
from rootserve.client.load.recording import Progress


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How a run stands at one moment.

    Attributes:
        elapsed_s: Since the run's start, the warm-up included.
        warming_up: Whether the warm-up is still going on; then nothing counts yet.
        requests: Requests of the window that were answered or failed.
        failed: Those that failed.
        rows_per_s: Rows answered per second of the window, or of the warm-up.
        p99_s: Of the response times of the window; None before there are any.
        p50_s: The same.
        recent_p50_s: Of the answers since the last snapshot, whenever they were due.
        recent_p99_s: The same.
        errors: Failures by status code.
        in_flight: Requests under way.
        late: Requests of the window that left more than 1 ms late.
        answered_rows: Rows answered since the start.
        window: Which measured window this is, from 0; -1 in the warm-up.
    """

    elapsed_s: float
    warming_up: bool
    requests: int
    failed: int
    rows_per_s: float
    p99_s: float | None
    p50_s: float | None = None
    recent_p50_s: float | None = None
    recent_p99_s: float | None = None
    errors: Mapping[str, int] = field(default_factory=dict)
    in_flight: int = 0
    late: int = 0
    answered_rows: int = 0
    window: int = -1


def snapshot_of(progress: Progress, options: LoadOptions, now_s: float) -> Snapshot:
    """How a run stands; during the warm-up the rate is that of the warm-up."""
    warming_up = now_s < options.warmup_s
    since_s = now_s if warming_up else min(now_s, options.longest_s) - options.warmup_s
    rows = progress.answered_rows if warming_up else progress.window_rows
    failed = sum(progress.errors.values())
    return Snapshot(
        elapsed_s=now_s,
        warming_up=warming_up,
        requests=progress.response.count + failed,
        failed=failed,
        rows_per_s=rows / since_s if since_s > 0 else 0.0,
        p99_s=progress.response.quantile(0.99),
        p50_s=progress.response.quantile(0.5),
        recent_p50_s=progress.recent.quantile(0.5),
        recent_p99_s=progress.recent.quantile(0.99),
        errors=progress.errors,
        in_flight=progress.in_flight,
        late=progress.late,
        answered_rows=progress.answered_rows,
        window=-1 if warming_up else int((now_s - options.warmup_s) / options.duration_s),
    )
