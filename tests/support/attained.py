"""Load runs with deadlines that never happened, told the times."""

from dataclasses import replace

from rootserve.client.load import LoadOptions, LoadResult
from rootserve.client.load.recording import Recorder
from rootserve.client.load.report import Attained
from rootserve.client.load.requests import plan_for
from rootserve.client.load.result import RunFacts, result_of
from rootserve.client.wire import Chosen, Timeline
from tests.support.load_results import STARTED

DEADLINE_S = 0.1
OPTIONS = LoadOptions(
    model="nin-auto", rate=10.0, deadline_s=DEADLINE_S, warmup_s=0.0, duration_s=10.0
)
BEST, FAST = Chosen("nin-orig", 0.9), Chosen("nin-root-16", 0.8)


def timeline(total_s: float) -> Timeline:
    """The server had the request for so long."""
    return Timeline(0.0, 0.0, 0.001, total_s, 1, "cpu-0", "fake", "fp32")


def recorder_of(
    options: LoadOptions = OPTIONS, accuracies: dict[str, float] | None = None
) -> Recorder:
    """Nothing is recorded yet; the server told these accuracies."""
    return Recorder(options, replace(plan_for(options), accuracies=accuracies or {}))


def measured(recorder: Recorder, options: LoadOptions = OPTIONS) -> LoadResult:
    """What the run has measured."""
    facts = RunFacts(
        started_at=STARTED, end_s=recorder.end_s, interrupted=False, client_cpu_cores=0.1
    )
    return result_of(options, recorder.recording(), facts)


def answer(
    recorder: Recorder,
    response_s: float,
    *,
    due_s: float = 2.0,
    wait_s: float = 0.0,
    chosen: Chosen | None = BEST,
    kind: int = 0,
) -> None:
    """One answer; the server had it all the time since it was sent."""
    sent_s = due_s + wait_s
    told = timeline(response_s - wait_s)
    recorder.departed(due_s, sent_s)
    recorder.succeeded_at(due_s, sent_s, due_s + response_s, told, kind, 0, chosen)


def kept(recorder: Recorder, options: LoadOptions = OPTIONS) -> Attained:
    """What it has kept."""
    found = measured(recorder, options).attained
    assert found is not None
    return found


def busy() -> LoadResult:
    """Twenty answers in time, half by each variant, and five of each kind that is not."""
    recorder = recorder_of()
    for n in range(20):
        answer(recorder, 0.05, due_s=1.0 + n / 4, chosen=BEST if n % 2 else FAST)
    for n in range(5):
        answer(recorder, 0.2, due_s=1.0 + n, chosen=FAST)
        recorder.departed(2.0, 2.0)
        recorder.failed(2.0, "RESOURCE_EXHAUSTED", 0, 0, 2.001, "DEADLINE_INFEASIBLE")
    return measured(recorder)
