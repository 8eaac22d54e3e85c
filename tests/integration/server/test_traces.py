"""Spans of requests through the wire and the dispatcher, on a pool that computes nothing, in memory."""

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    DEFAULT_OFF,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
)
from opentelemetry.trace import SpanKind, StatusCode
from tritonclient.grpc import service_pb2_grpc

from rootmodels.cost import network_cost
from rootmodels.variants import get_variant
from server.core.reasons import Reason
from server.core.scheduler import Limits, Scheduler
from server.dispatcher import Dispatcher
from server.models import ModelCard, Models
from server.observers.events import Observer
from server.observers.statistics import Statistics
from server.observers.traces import current_trace_id
from server.observers.traces_otel import OtelTraces
from server.wire.handling import CheckedServer
from server.wire.inference import InferenceService, ServerIdentity
from server.wire.parse import RequestLimits
from server.workers.handle import Part
from server.workers.pool import BatchReport
from tests.support.server_process import infer_request, plain_images

NAME = "nin-root-16"
METHOD = "inference.GRPCInferenceService/ModelInfer"
TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
PARENT_ID = 0xB7AD6B7169203331
CALLER = f"00-{TRACE_ID:032x}-{PARENT_ID:016x}-01"
CALLER_UNSAMPLED = f"00-{TRACE_ID:032x}-{PARENT_ID:016x}-00"


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for knows nothing of tests
        await asyncio.sleep(0.001)


class FakePool:
    """Notes what it is told to run; the test says when it is done."""

    def __init__(self) -> None:
        self.given: list[tuple[str, int]] = []

    def run(self, worker: str, batch: int, model: str, parts: tuple[Part, ...]) -> None:
        self.given.append((worker, batch))

    def take_output(self, worker: str, batch: int, model: str, rows: int) -> bytes:
        return np.zeros((rows, 10), np.float32).tobytes()


class TraceIds(Observer):
    """Notes the trace id that exemplars and log lines would carry."""

    def __init__(self) -> None:
        self.answered_in: list[str] = []
        self.refused_in: list[str] = []

    def answered(self, *_: Any) -> None:
        self.answered_in.append(current_trace_id())

    def refused(self, *_: Any) -> None:
        self.refused_in.append(current_trace_id())


class Service:
    """The inference service on a port of its own, with a worker that is ready."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        variant = get_variant(NAME)
        models = Models([ModelCard(variant, network_cost(variant), None, None)])
        models.select([NAME])
        model = models.get(NAME)
        assert model is not None
        model.ready_on.add("w")
        model.engine, model.precision = "fake", "fp32"
        self.exporter = InMemorySpanExporter()
        self.pool = FakePool()
        self.observer = TraceIds()
        traces = OtelTraces("1.2.3", SimpleSpanProcessor(self.exporter), sampler)
        limits = Limits(max_batch_rows=4, max_queue_rows=4)
        self.dispatcher = Dispatcher(
            Scheduler(limits),
            self.pool,  # type: ignore[arg-type]
            models,
            self.observer,
            traces,
        )
        self.dispatcher.worker_ready("w", frozenset([NAME]))
        identity = ServerIdentity("rootserve", "1.2.3", RequestLimits(4, 3, 2))
        self.server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            InferenceService(
                identity, models, self.dispatcher, Statistics(), self.observer, None, traces
            ),
            CheckedServer(self.server, self.observer),  # type: ignore[arg-type]
        )
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    async def given(self, batches: int = 1) -> None:
        """Wait until the pool was given so many."""
        await until(lambda: len(self.pool.given) >= batches)

    async def waiting(self, requests: int) -> None:
        """Wait until the dispatcher has so many."""
        await until(lambda: len(self.dispatcher._waiting) >= requests)

    async def compute(self, expired: tuple[int, ...] = ()) -> None:
        """Be done with the oldest batch that was given."""
        await self.given()
        worker, batch = self.pool.given.pop(0)
        began_ns = time.monotonic_ns()
        report = BatchReport(began_ns, time.monotonic_ns(), expired)
        self.dispatcher.batch_done(worker, batch, report)

    def ask(self, rows: int = 1, caller: str = "", **options: Any) -> Any:
        metadata = [("traceparent", caller)] if caller else []
        request = infer_request(NAME, plain_images(rows), "id-1")
        return self.stub.ModelInfer(request, metadata=metadata, **options)

    async def spans(self, number: int) -> list[ReadableSpan]:
        """All spans; there must be ``number`` of them in the end."""
        await until(lambda: len(self.exporter.get_finished_spans()) >= number)
        await asyncio.sleep(0.01)
        spans = self.exporter.get_finished_spans()
        assert len(spans) == number, [span.name for span in spans]
        return list(spans)


async def started(service: Service) -> AsyncIterator[Service]:
    await service.server.start()
    yield service
    await service.channel.close()
    await service.server.stop(0)
    service.dispatcher.close()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async for one in started(Service()):
        yield one


def named(spans: list[ReadableSpan], name: str) -> ReadableSpan:
    (found,) = [span for span in spans if span.name == name]
    return found


def children(spans: list[ReadableSpan], parent: ReadableSpan) -> dict[str, ReadableSpan]:
    return {
        span.name: span for span in spans if span.parent and span.parent.span_id == id_of(parent)
    }


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)


async def test_one_request_is_a_tree_in_its_callers_trace_and_linked_to_its_batch(
    service: Service,
) -> None:
    call = service.ask(2, CALLER)
    await service.compute()
    response = await call
    spans = await service.spans(6)

    wire = named(spans, METHOD)
    assert wire.kind is SpanKind.SERVER
    assert trace_of(wire) == TRACE_ID
    assert wire.parent is not None
    assert wire.parent.span_id == PARENT_ID
    assert wire.status.status_code is StatusCode.UNSET
    assert dict(wire.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "rpc.response.status_code": "OK",
        "rootserve.request.id": "id-1",
        "rootserve.model": NAME,
        "rootserve.rows": 2,
    }

    stages = children(spans, wire)
    assert set(stages) == {"queue", "batch wait", "compute"}
    assert all(trace_of(stage) == TRACE_ID for stage in stages.values())

    batch = named(spans, "batch")
    assert batch.parent is None
    assert trace_of(batch) != TRACE_ID
    assert [link.context.span_id for link in batch.links] == [id_of(wire)]
    assert [link.context.span_id for link in wire.links] == [id_of(batch)]
    assert dict(batch.attributes or {}) == {
        "rootserve.model": NAME,
        "rootserve.batch.rows": 2,
        "rootserve.batch.requests": 1,
        "rootserve.worker": "w",
        "rootserve.engine": "fake",
        "rootserve.precision": "fp32",
    }
    assert set(children(spans, batch)) == {"compute"}

    # The times are those of the answer's own timeline, one stage after the other.
    told = {name: value.int64_param for name, value in response.parameters.items()}
    lengths = {name: length_ns(stage) for name, stage in stages.items()}
    assert abs(lengths["queue"] - told["queue_ns"]) < 1000  # seconds as floats round
    assert abs(lengths["batch wait"] - told["batch_wait_ns"]) < 1000
    assert lengths["compute"] == told["compute_ns"]
    in_order = [stages["queue"], stages["batch wait"], stages["compute"]]
    assert wire.start_time is not None
    assert wire.start_time <= in_order[0].start_time  # type: ignore[operator]
    for earlier, later in itertools.pairwise(in_order):
        assert earlier.end_time == later.start_time
    assert in_order[-1].end_time <= wire.end_time  # type: ignore[operator]
    assert abs(wire.start_time - time.time_ns()) < 60e9

    assert service.observer.answered_in == [f"{TRACE_ID:032x}"]
    assert wire.resource.attributes["service.name"] == "rootserve"
    assert wire.resource.attributes["service.version"] == "1.2.3"


def length_ns(span: ReadableSpan) -> int:
    assert span.end_time is not None
    assert span.start_time is not None
    return span.end_time - span.start_time


async def test_a_batch_links_to_all_its_requests_each_in_its_own_trace(service: Service) -> None:
    # One is computed, one is ahead; what comes then shares the next batch.
    calls = [service.ask()]
    await service.given(1)
    calls.append(service.ask())
    await service.given(2)
    calls += [service.ask(2), service.ask(2)]
    await service.waiting(4)
    for _ in range(3):
        await service.compute()
    for call in calls:
        await call
    spans = await service.spans(4 * 4 + 3 * 2)
    wires = [span for span in spans if span.name == METHOD]
    assert len({trace_of(wire) for wire in wires}) == 4
    assert all(wire.parent is None for wire in wires)
    (shared,) = [
        span
        for span in spans
        if span.name == "batch" and (span.attributes or {})["rootserve.batch.requests"] == 2
    ]
    linked = {link.context.span_id for link in shared.links}
    linking = {id_of(wire) for wire in wires if wire.links[0].context.span_id == id_of(shared)}
    assert linked == linking
    assert len(linked) == 2


async def test_a_caller_who_is_not_traced_is_not_traced_here(service: Service) -> None:
    call = service.ask(1, CALLER_UNSAMPLED)
    await service.compute()
    await call
    await service.spans(0)
    assert service.observer.answered_in == [""]


@pytest.mark.parametrize("caller", ["", "not-a-context", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
async def test_without_a_context_that_can_be_read_a_trace_begins_here(
    service: Service, caller: str
) -> None:
    call = service.ask(1, caller)
    await service.compute()
    await call
    wire = named(await service.spans(6), METHOD)
    assert wire.parent is None
    assert trace_of(wire) != TRACE_ID


@pytest.mark.parametrize(
    ("sampler", "caller", "number"),
    [
        (ALWAYS_OFF, CALLER, 0),
        (DEFAULT_OFF, "", 0),
        (DEFAULT_OFF, CALLER, 6),
        (ParentBased(ALWAYS_OFF, remote_parent_sampled=ALWAYS_OFF), CALLER, 0),
    ],
)
async def test_the_sampler_decides_and_the_batch_follows(
    sampler: Sampler, caller: str, number: int
) -> None:
    async for service in started(Service(sampler)):
        call = service.ask(1, caller)
        await service.compute()
        await call
        await service.spans(number)


class EveryOther(Sampler):
    """Samples the first root span, not the second, the third, ..."""

    def __init__(self) -> None:
        self._turns = itertools.cycle((Decision.RECORD_AND_SAMPLE, Decision.DROP))

    def should_sample(self, *_: Any, **__: Any) -> SamplingResult:
        return SamplingResult(next(self._turns))

    def get_description(self) -> str:
        return "every other"


async def test_an_untraced_request_of_a_stream_is_not_observed_in_the_trace_before_it() -> None:
    async for service in started(Service(ParentBased(EveryOther()))):
        stream = service.stub.ModelStreamInfer()
        for bad in (False, False, True, True):
            name = "no-such-model" if bad else NAME
            await stream.write(infer_request(name, plain_images(1)))
            if not bad:
                await service.compute()
            await stream.read()
        await stream.done_writing()
        first, second = service.observer.answered_in
        third, fourth = service.observer.refused_in
        assert len(first) == len(third) == 32
        assert second == fourth == ""


async def test_requests_of_a_stream_have_the_streams_caller(service: Service) -> None:
    async def requests() -> AsyncIterator[Any]:
        for number in range(2):
            yield infer_request(NAME, plain_images(2), f"id-{number}")

    stream = service.stub.ModelStreamInfer(requests(), metadata=[("traceparent", CALLER)])
    await service.waiting(2)
    await service.compute()
    if service.dispatcher._waiting:  # they came one by one
        await service.compute()
    assert len([answer async for answer in stream]) == 2
    wires = [
        span
        for span in service.exporter.get_finished_spans()
        if span.name == "inference.GRPCInferenceService/ModelStreamInfer"
    ]
    assert {(span.attributes or {})["rootserve.request.id"] for span in wires} == {"id-0", "id-1"}
    assert {trace_of(span) for span in wires} == {TRACE_ID}
    assert service.observer.answered_in == [f"{TRACE_ID:032x}"] * 2


# Requests that get no answer.


async def refused(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    code: grpc.StatusCode = caught.value.code()
    return code


def assert_error(span: ReadableSpan, reason: Reason) -> None:
    assert span.attributes is not None
    assert span.attributes["error.type"] == reason.value


async def test_a_bad_request_is_one_span_and_no_error_of_the_server(service: Service) -> None:
    assert await refused(service.ask(5, CALLER)) is grpc.StatusCode.INVALID_ARGUMENT
    (wire,) = await service.spans(1)
    assert_error(wire, Reason.INVALID_REQUEST)
    assert wire.status.status_code is StatusCode.UNSET
    assert (wire.attributes or {})["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert service.observer.refused_in == [f"{TRACE_ID:032x}"]


async def test_what_a_caller_made_up_is_not_the_name_of_a_model(service: Service) -> None:
    request = infer_request("made-up", plain_images(1), "x" * 1000)
    assert await refused(service.stub.ModelInfer(request)) is grpc.StatusCode.NOT_FOUND
    (wire,) = await service.spans(1)
    assert "rootserve.model" not in (wire.attributes or {})
    assert (wire.attributes or {})["rootserve.request.id"] == "x" * 128


async def test_a_failed_batch_is_an_error_of_the_server_in_both_traces(service: Service) -> None:
    call = service.ask(1, CALLER)
    await service.given()
    service.dispatcher.batch_failed(*service.pool.given[0], "boom")
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


async def test_a_deadline_that_passed_in_the_queue_is_seen_there(service: Service) -> None:
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


async def test_a_deadline_that_passed_at_the_worker_is_seen_there(service: Service) -> None:
    call = service.ask(1, CALLER)
    await service.compute(expired=(0,))
    assert await refused(call) is grpc.StatusCode.DEADLINE_EXCEEDED
    mine = [span for span in await service.spans(5) if trace_of(span) == TRACE_ID]
    assert {span.name for span in mine} == {METHOD, "queue", "batch wait"}
    assert_error(named(mine, "batch wait"), Reason.DEADLINE_EXPIRED)


async def test_a_cancelled_request_ends_its_trace_and_leaves_its_batch_alone(
    service: Service,
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
    service: Service,
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


async def test_what_waits_for_a_model_that_fails_waited_until_then(service: Service) -> None:
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


async def test_a_request_that_lost_a_worker_tells_so(service: Service) -> None:
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
