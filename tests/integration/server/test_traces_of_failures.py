"""Spans of requests that get no answer."""

import math
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from rootserve.server.pending import Report
from rootserve.server.refusals import Reason
from tests.support.server_process import infer_request, plain_images
from tests.support.traced_service import (
    CALLER,
    METHOD,
    NAME,
    TRACE_ID,
    TracedService,
    children,
    id_of,
    length_ns,
    named,
    started,
    trace_of,
    until,
)


@pytest.fixture
async def service() -> AsyncIterator[TracedService]:
    async for one in started(TracedService()):
        yield one


async def refused(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    code: grpc.StatusCode = caught.value.code()
    return code


def assert_error(span: ReadableSpan, reason: Reason) -> None:
    assert span.attributes is not None
    assert span.attributes["error.type"] == reason.value


async def test_a_bad_request_is_one_span_and_no_error_of_the_server(service: TracedService) -> None:
    assert await refused(service.ask(5, CALLER)) is grpc.StatusCode.INVALID_ARGUMENT
    (wire,) = await service.spans(1)
    assert_error(wire, Reason.INVALID_REQUEST)
    assert wire.status.status_code is StatusCode.UNSET
    assert (wire.attributes or {})["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert service.observer.refused_in == [f"{TRACE_ID:032x}"]


async def test_what_a_caller_made_up_is_not_the_name_of_a_model(service: TracedService) -> None:
    request = infer_request("made-up", plain_images(1), "x" * 1000)
    assert await refused(service.stub.ModelInfer(request)) is grpc.StatusCode.NOT_FOUND
    (wire,) = await service.spans(1)
    assert "rootserve.model" not in (wire.attributes or {})
    assert (wire.attributes or {})["rootserve.request.id"] == "x" * 128


async def test_a_failed_batch_is_an_error_of_the_server_in_both_traces(
    service: TracedService,
) -> None:
    call = service.ask(1, CALLER)
    await service.given()
    service.dispatcher.batch_failed(*service.pool.given[0], "boom", Report(0, 0))
    assert await refused(call) is grpc.StatusCode.INTERNAL
    spans = await service.spans(4)
    wire = named(spans, METHOD)
    assert wire.status.status_code is StatusCode.ERROR
    assert wire.status.description == f"model {NAME} failed on this batch: boom"
    stages = children(spans, wire)
    assert set(stages) == {"queue", "batch"}
    (batch,) = [span for span in spans if span.parent is None]
    for span in (wire, stages["batch"], batch):
        assert_error(span, Reason.MODEL_FAILURE)
    assert "error.type" not in (stages["queue"].attributes or {})


async def test_a_deadline_that_passed_in_the_queue_is_seen_there(service: TracedService) -> None:
    busy = [service.ask()]
    await service.given(1)
    busy.append(service.ask())
    await service.given(2)
    request = infer_request(NAME, plain_images(1))
    request.parameters["deadline_ms"].int64_param = 5
    code = await refused(service.stub.ModelInfer(request, metadata=[("traceparent", CALLER)]))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    for call in busy:
        await service.compute()
        await call
    mine = [span for span in await service.spans(2 + 2 * 6) if trace_of(span) == TRACE_ID]
    wire, queue = named(mine, METHOD), named(mine, "queue")
    assert len(mine) == 2
    assert wire.status.status_code is StatusCode.ERROR
    assert_error(wire, Reason.DEADLINE_EXPIRED)
    assert length_ns(queue) >= 5e6


async def test_a_deadline_that_passed_at_the_worker_is_seen_there(service: TracedService) -> None:
    call = service.ask(1, CALLER)
    await service.compute(expired=(0,))
    assert await refused(call) is grpc.StatusCode.DEADLINE_EXCEEDED
    mine = [span for span in await service.spans(5) if trace_of(span) == TRACE_ID]
    assert {span.name for span in mine} == {METHOD, "queue", "batch wait"}
    assert_error(named(mine, "batch wait"), Reason.DEADLINE_EXPIRED)


async def test_a_cancelled_request_ends_its_trace_and_leaves_its_batch_alone(
    service: TracedService,
) -> None:
    gone = service.ask(1, CALLER)
    await service.given()
    gone.cancel()
    await until(lambda: bool(service.observer.refused_in))
    assert service.observer.refused_in == [f"{TRACE_ID:032x}"]
    await service.compute()
    kept = service.ask()
    await service.compute()
    await kept
    await service.spans(1 + 6)
    mine = [span for span in service.exporter.get_finished_spans() if trace_of(span) == TRACE_ID]
    wire = named(mine, METHOD)
    assert_error(wire, Reason.CANCELLED)
    assert (wire.attributes or {})["rpc.response.status_code"] == "CANCELLED"
    for span in service.exporter.get_finished_spans():
        assert id_of(wire) not in [link.context.span_id for link in span.links]


async def test_a_request_that_is_cancelled_in_the_queue_waited_until_then(
    service: TracedService,
) -> None:
    busy = [service.ask()]
    await service.given(1)
    busy.append(service.ask())
    await service.given(2)
    gone = service.ask(1, CALLER)
    await service.waiting(3)
    gone.cancel()
    mine = [span for span in await service.spans(2) if trace_of(span) == TRACE_ID]
    assert_error(named(mine, METHOD), Reason.CANCELLED)
    assert length_ns(named(mine, "queue")) > 0
    for call in busy:
        await service.compute()
        await call


async def test_what_waits_for_a_model_that_fails_waited_until_then(service: TracedService) -> None:
    busy = [service.ask()]
    await service.given(1)
    busy.append(service.ask())
    await service.given(2)
    call = service.ask(1, CALLER)
    await service.waiting(3)
    service.dispatcher.model_failed(NAME)
    assert await refused(call) is grpc.StatusCode.UNAVAILABLE
    mine = [span for span in await service.spans(2) if trace_of(span) == TRACE_ID]
    assert_error(named(mine, METHOD), Reason.MODEL_NOT_READY)
    assert named(mine, "queue")
    for other in busy:
        await service.compute()
        await other


async def test_a_request_that_lost_a_worker_tells_so(service: TracedService) -> None:
    call = service.ask(1, CALLER)
    await service.given()
    service.pool.given.clear()
    service.dispatcher.worker_lost("w")
    service.dispatcher.worker_ready("w", frozenset([NAME]))
    await service.compute()
    await call
    wire = named(await service.spans(6), METHOD)
    assert (wire.attributes or {})["rootserve.workers_lost"] == 1
    assert math.isfinite(length_ns(wire))
