"""rootserve.v1.ExplainService: why requests went as they did, and how long batches take."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import grpc

from rootserve.server.core.decisions import Choice
from rootserve.server.core.latency import LatencyTable
from rootserve.server.families import family_name
from rootserve.server.members import member_of
from rootserve.server.models import Models
from rootserve.server.observers.explain import OK, REFUSED, Explained, Explainer
from rootserve.server.pending import InBatch
from rootserve.server.refusals import Promise, Reason, RefusalError
from rootserve.server.wire.words import quote
from rootserve.v1 import explain_pb2 as pb
from rootserve.v1 import explain_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

_OUTCOMES = frozenset({"", OK, REFUSED, *(reason.value for reason in Reason)})
_MOST = 1000
_SCHEMA = "rootserve.latency/1"
_LONGEST_MESSAGE = 1000


class ExplainService(explain_pb2_grpc.ExplainServiceServicer):
    """Answers from memory; ``explainer`` is None where no requests are kept."""

    def __init__(self, models: Models, table: LatencyTable, explainer: Explainer | None) -> None:
        self._models = models
        self._table = table
        self._explainer = explainer

    async def Explain(  # noqa: N802 - the protocol's name
        self, request: pb.ExplainRequest, context: Context
    ) -> pb.ExplainResponse:
        """The last requests of an id, model or outcome."""
        explainer = self._explainer
        if explainer is None:
            text = "no requests are kept to be explained; start the server with --explain 1000"
            raise RefusalError(Reason.EXPLAIN_OFF, text)
        if request.outcome not in _OUTCOMES:
            known = ", ".join(sorted(_OUTCOMES - {""}))
            text = f"outcome: {quote(request.outcome)} came, expected one of {known}"
            raise RefusalError(Reason.INVALID_REQUEST, text)
        if request.last > _MOST:
            text = f"last: {request.last} came, expected at most {_MOST}"
            raise RefusalError(Reason.INVALID_REQUEST, text)
        found = explainer.find(
            request.request_id, request.model, request.outcome, request.last or 1
        )
        if request.request_id and not found:
            text = f"no request {quote(request.request_id)} is among those kept, the last {explainer.size}"
            raise RefusalError(Reason.UNKNOWN_REQUEST, text)
        return pb.ExplainResponse(
            explanations=[explanation(one) for one in found], kept=explainer.size
        )

    async def GetLatencyTable(  # noqa: N802
        self, request: pb.GetLatencyTableRequest, context: Context
    ) -> pb.GetLatencyTableResponse:
        """What the scheduler expects of batches."""
        document = self._table.document()
        return pb.GetLatencyTableResponse(
            latencies=[
                pb.Latency(
                    worker_kind=row["kind"],
                    model=row["model"],
                    form=row["form"],
                    rows=row["rows"],
                    count=row["count"],
                    p50_ns=round(row["p50_s"] * 1e9),
                    p99_ns=round(row["p99_s"] * 1e9),
                )
                for row in document["latency"]
            ],
            document=json.dumps(
                {"schema": _SCHEMA, "members": [*_members(self._models)], **document}
            ),
        )


def _members(models: Models) -> Iterator[dict[str, object]]:
    """The variants that are served and can be compared, as the scheduler knows them."""
    for model in models.served():
        if model.card.accuracy is not None:
            yield {"family": family_name(model.card), **member_of(model)._asdict()}


def explanation(one: Explained) -> pb.Explanation:
    """A request that ended, as the protocol has it."""
    message = pb.Explanation(
        request_id=one.request_id,
        model=one.model,
        outcome=one.outcome,
        message=one.message[:_LONGEST_MESSAGE],
        total_ns=one.total_ns,
    )
    message.arrived_at.FromNanoseconds(one.ended_ns - one.total_ns)
    if one.promise is not None:
        message.promise.CopyFrom(_promise(one.promise))
    request, story = one.request, one.story
    if request is None or story is None:
        return message
    message.rows, message.priority = request.rows, request.priority
    message.accuracy_floor = request.floor
    message.variants.extend(sorted(request.allowed))
    message.caller, message.workers_lost = request.caller, request.attempts
    message.rows_waiting, message.rows_computing = story.waiting, story.computing
    if request.deadline_s < math.inf:
        message.deadline_ns = round((request.deadline_s - request.arrived_s) * 1e9)
    if story.batch is not None:
        message.batch.CopyFrom(_batch(one, story.batch, request.id, request.arrived_s))
    return message


def _promise(promise: Promise) -> pb.Promise:
    message = pb.Promise()
    if promise.earliest_s < math.inf:
        message.earliest_ns = round(promise.earliest_s * 1e9)
    if promise.floor is not None:
        message.accuracy_floor_fitting = promise.floor
    return message


def _batch(one: Explained, shared: InBatch, own: int, arrived_s: float) -> pb.ExplainedBatch:
    batch, report = shared.batch, shared.report
    formed_ns = round(batch.formed_s * 1e9)
    others = zip(batch.requests, shared.ids, strict=True)
    message = pb.ExplainedBatch(
        variant=batch.model,
        worker=batch.worker,
        rows=batch.rows,
        requests=len(batch.requests),
        shared_with=[name for request, name in others if name and request.id != own],
        queue_ns=formed_ns - round(arrived_s * 1e9),
        beside=batch.beside,
    )
    if report.began_ns:  # else it failed
        message.batch_wait_ns = max(0, report.began_ns - formed_ns)
        message.compute_ns = report.ended_ns - report.began_ns
    if one.timeline is not None and one.timeline.accuracy is not None:
        message.accuracy = one.timeline.accuracy
    if batch.predicted_s is not None:
        message.predicted_ns = round(batch.predicted_s * 1e9)
    if batch.choice is not None:
        message.choice.CopyFrom(_choice(batch.choice, batch.formed_s))
    return message


def _choice(choice: Choice, formed_s: float) -> pb.Choice:
    message = pb.Choice(waiting=choice.waiting, rate=choice.rate, reason=choice.reason)
    if choice.slack_s < math.inf:
        message.slack_ns = round(choice.slack_s * 1e9)
    for one in choice.candidates:
        finish_ns = round((one.finish_s - formed_s) * 1e9)
        message.candidates.add(
            variant=one.variant, rows=one.rows, finish_ns=finish_ns, verdict=one.verdict
        )
    return message
