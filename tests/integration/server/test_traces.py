"""Spans of requests that are answered, through the wire and the dispatcher."""

import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    DEFAULT_OFF,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
)
from opentelemetry.trace import SpanKind, StatusCode

from tests.support.server_process import infer_request, plain_images
from tests.support.traced_service import (
    CALLER,
    CALLER_UNSAMPLED,
    METHOD,
    NAME,
    PARENT_ID,
    TRACE_ID,
    TracedService,
    children,
    id_of,
    length_ns,
    named,
    started,
    trace_of,
)


@pytest.fixture
async def service() -> AsyncIterator[TracedService]:
    async for one in started(TracedService()):
        yield one


async def test_one_request_is_a_tree_in_its_callers_trace_and_linked_to_its_batch(
    service: TracedService,
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


async def test_a_batch_links_to_all_its_requests_each_in_its_own_trace(
    service: TracedService,
) -> None:
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


async def test_a_caller_who_is_not_traced_is_not_traced_here(service: TracedService) -> None:
    call = service.ask(1, CALLER_UNSAMPLED)
    await service.compute()
    await call
    await service.spans(0)
    assert service.observer.answered_in == [""]


@pytest.mark.parametrize("caller", ["", "not-a-context", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
async def test_without_a_context_that_can_be_read_a_trace_begins_here(
    service: TracedService, caller: str
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
    async for service in started(TracedService(sampler)):
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
    async for service in started(TracedService(ParentBased(EveryOther()))):
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


async def test_requests_of_a_stream_have_the_streams_caller(service: TracedService) -> None:
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
