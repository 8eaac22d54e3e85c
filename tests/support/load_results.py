"""Results of load runs that never happened, told the times."""

from datetime import UTC, datetime

from rootserve.client.load import LoadOptions, LoadResult, Mix
from rootserve.client.load.recording import Recorder
from rootserve.client.load.requests import plan_for
from rootserve.client.load.result import RunFacts, result_of

OPTIONS = LoadOptions(model="nin-orig", concurrency=2, rows=4, warmup_s=1.0, duration_s=10.0)
MIXED = LoadOptions(
    model=Mix(("a", "b"), (3.0, 1.0)),
    rows=Mix((1, 8), (1.0, 1.0)),
    priority=Mix((1, 3), (1.0, 9.0)),
    deadline_s=0.5,
    concurrency=1,
    seed=3,
)
STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def recorder_of(options: LoadOptions = OPTIONS) -> Recorder:
    """Nothing is recorded yet."""
    return Recorder(options, plan_for(options))


def measured(recorder: Recorder, options: LoadOptions = OPTIONS, **changes: bool) -> LoadResult:
    """What the run has measured."""
    settings = {"interrupted": False} | changes
    facts = RunFacts(started_at=STARTED, end_s=recorder.end_s, client_cpu_cores=0.25, **settings)
    return result_of(options, recorder.recording(), facts)
