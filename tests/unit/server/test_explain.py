"""What is kept of requests, and how it is told."""

import json
import math

import pytest

from rootserve.server.core.decisions import Batch, Candidate, Choice
from rootserve.server.core.latency import LatencyTable
from rootserve.server.core.queue import Request
from rootserve.server.models import Models
from rootserve.server.observers.events import Refusal
from rootserve.server.observers.explain import Explainer
from rootserve.server.pending import Pending, Report, Story, Timeline
from rootserve.server.refusals import Promise, Reason, RefusalError
from rootserve.server.wire.explain import ExplainService, explanation
from rootserve.v1 import explain_pb2 as pb
from tests.support.pending import pending

CHOICE = Choice(
    slack_s=0.04,
    waiting=3,
    rate=120.0,
    tried=(
        Candidate("nin-orig", 2, 7.03, "in time"),
        Candidate("nin-root-4", 2, 7.02, "less"),
    ),
    reason="most accurate",
)
TIMELINE = Timeline(
    queue_ns=1_000_000,
    batch_wait_ns=2_000_000,
    compute_ns=3_000_000,
    total_ns=7_000_000,
    batch_rows=2,
    worker="cpu-0",
    engine="fake",
    precision="fp32",
    variant="nin-orig",
    accuracy=0.9026,
    predicted_ns=4_000_000,
)


def asked(name: str, model: str = "nin-auto") -> Pending:
    """A request that came at 7 s."""
    made = pending(model=model, request_id=name)
    request = made.request._replace(arrived_s=7.0, deadline_s=7.05, floor=0.9, caller="alice")
    made.request = request
    made.story = Story(request, waiting=5, computing=4)
    return made


def refusal(name: str, reason: Reason, model: str = "nin-auto", **more: object) -> Refusal:
    return Refusal(reason, "no", "X", 0.25, "/m", model=model, request_id=name, **more)  # type: ignore[arg-type]


def answer(explainer: Explainer, *requests: Pending) -> None:
    """All in one batch, which a worker that died has begun before."""
    again = tuple(one.request._replace(attempts=1) for one in requests)
    batch = Batch(1, "nin-orig", "cpu-0", again, len(again), 7.001, 0.004, CHOICE)
    report = Report(7_003_000_000, 7_006_000_000, engine="fake", precision="fp32")
    explainer.batch_ended(batch, report, requests)
    for one in requests:
        explainer.answered(one, TIMELINE)


def test_a_request_is_told_with_its_batch_and_why() -> None:
    explainer = Explainer(10)
    answer(explainer, asked("a"), asked("b"))
    (found,) = explainer.find("a")
    told = explanation(found)
    assert (told.request_id, told.model, told.outcome) == ("a", "nin-auto", "ok")
    assert (told.rows, told.rows_waiting, told.rows_computing) == (1, 5, 4)
    assert (told.deadline_ns, told.accuracy_floor, told.caller) == (50_000_000, 0.9, "alice")
    assert (told.workers_lost, told.total_ns) == (1, 7_000_000)
    batch = told.batch
    assert (batch.variant, batch.accuracy, batch.worker) == ("nin-orig", 0.9026, "cpu-0")
    assert (batch.rows, batch.requests, list(batch.shared_with)) == (2, 2, ["b"])
    assert (batch.queue_ns, batch.batch_wait_ns) == (1_000_000, 2_000_000)
    assert (batch.compute_ns, batch.predicted_ns) == (3_000_000, 4_000_000)
    choice = batch.choice
    assert (choice.slack_ns, choice.waiting, choice.reason) == (40_000_000, 3, "most accurate")
    assert [(one.variant, one.finish_ns) for one in choice.candidates] == [
        ("nin-orig", 29_000_000),
        ("nin-root-4", 19_000_000),
    ]


def test_a_refusal_is_told_with_what_could_have_been_promised() -> None:
    explainer = Explainer(10)
    one = asked("r")
    promise = Promise("nin-auto", 0.08, 0.8946)
    explainer.refused(refusal("r", Reason.DEADLINE_INFEASIBLE, promise=promise, story=one.story))
    told = explanation(explainer.find(outcome="refused")[0])
    assert (told.outcome, told.message, told.total_ns) == ("deadline_infeasible", "no", 250_000_000)
    assert told.promise.earliest_ns == 80_000_000
    assert told.promise.accuracy_floor_fitting == 0.8946
    assert not told.HasField("batch")
    assert told.rows_waiting == 5
    never = Promise("nin-auto", math.inf, None)
    explainer.refused(refusal("n", Reason.DEADLINE_INFEASIBLE, promise=never))
    told = explanation(explainer.find("n")[0])
    assert not told.promise.HasField("earliest_ns")
    assert not told.promise.HasField("accuracy_floor_fitting")


def test_the_newest_come_first_and_the_oldest_go() -> None:
    explainer = Explainer(3)
    for n in range(5):
        answer(explainer, asked(f"id-{n}"))
    explainer.refused(refusal("bad", Reason.INVALID_REQUEST, model="nin-orig"))
    explainer.refused(refusal("nobody", Reason.UNKNOWN_MODEL, model=""))
    assert [one.request_id for one in explainer.find(last=10)] == ["bad", "id-4", "id-3"]
    assert [one.request_id for one in explainer.find(model="nin-auto", last=1)] == ["id-4"]
    assert [one.request_id for one in explainer.find(outcome="ok", last=9)] == ["id-4", "id-3"]
    assert [one.request_id for one in explainer.find(outcome="refused", last=9)] == ["bad"]
    assert explainer.find("id-0") == []


async def test_questions_that_cannot_be_answered_are_refused() -> None:
    off = ExplainService(Models([]), LatencyTable(), None)
    with pytest.raises(RefusalError, match="--explain") as caught:
        await off.Explain(pb.ExplainRequest(), None)  # type: ignore[arg-type]
    assert caught.value.reason is Reason.EXPLAIN_OFF
    service = ExplainService(Models([]), LatencyTable(), Explainer(5))
    for request, words in (
        (pb.ExplainRequest(request_id="x"), "no request 'x' is among those kept, the last 5"),
        (pb.ExplainRequest(outcome="good"), "outcome: 'good' came, expected one of"),
        (pb.ExplainRequest(last=1001), "last: 1001 came, expected at most 1000"),
    ):
        with pytest.raises(RefusalError, match=words):
            await service.Explain(request, None)  # type: ignore[arg-type]
    answer = await service.Explain(pb.ExplainRequest(model="nin-orig"), None)  # type: ignore[arg-type]
    assert (len(answer.explanations), answer.kept) == (0, 5)


async def test_the_table_is_told_as_rows_and_as_a_document() -> None:
    table = LatencyTable()
    table.learn("nin-orig", 4, 0.002, "a cpu")
    service = ExplainService(Models([]), table, None)
    told = await service.GetLatencyTable(pb.GetLatencyTableRequest(), None)  # type: ignore[arg-type]
    (row,) = told.latencies
    assert (row.worker_kind, row.model, row.form, row.rows) == ("a cpu", "nin-orig", "pixels", 4)
    assert (row.count, row.p50_ns) == (1, 2_000_000)
    assert row.p99_ns >= row.p50_ns
    document = json.loads(told.document)
    assert (document["schema"], document["members"]) == ("rootserve.latency/1", [])
    assert LatencyTable.from_document(document).document() == table.document()


def test_a_request_that_was_never_offered_has_no_story() -> None:
    explainer = Explainer(2)
    explainer.refused(refusal("", Reason.INVALID_REQUEST))
    told = explanation(explainer.find()[0])
    assert (told.rows, told.outcome) == (0, "invalid_request")
    assert Request(1, "m", 1, 0.0).attempts == told.workers_lost
