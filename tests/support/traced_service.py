"""The inference service with traces in memory, on a pool that computes nothing; and what spans tell."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import numpy as np
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    Sampler,
)
from tritonclient.grpc import service_pb2_grpc

from rootmodels.cost import network_cost
from rootmodels.variants import get_variant
from rootserve.server.core.scheduler import Batch, Limits, Scheduler
from rootserve.server.dispatcher import Dispatcher
from rootserve.server.models import ModelCard, Models
from rootserve.server.observers.events import Observer, Observers
from rootserve.server.observers.statistics import Statistics
from rootserve.server.observers.traces import current_trace_id
from rootserve.server.observers.traces_otel import OtelTraces
from rootserve.server.pending import Pending, Report
from rootserve.server.wire.describe import Tensors
from rootserve.server.wire.handling import CheckedServer
from rootserve.server.wire.infer import Inference
from rootserve.server.wire.inference import InferenceService, ServerIdentity
from rootserve.server.wire.memory_guard import MemoryGuard
from rootserve.server.wire.parse_outputs import RequestLimits
from rootserve.server.wire.shared_memory import Regions
from tests.support.held import hold
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
    """One worker that notes what it is told to run; the test says when it is done."""

    def __init__(self) -> None:
        self.handles = {"w": self}
        self.given: list[tuple[str, int]] = []

    def run(self, batch: Batch, requests: Sequence[Pending]) -> None:
        self.given.append((batch.worker, batch.id))

    def take_output(self, batch: Batch) -> bytes:
        return np.zeros((batch.rows, 10), np.float32).tobytes()


class TraceIds(Observer):
    """Notes the trace id that exemplars and log lines would carry."""

    def __init__(self) -> None:
        self.answered_in: list[str] = []
        self.refused_in: list[str] = []

    def answered(self, *_: Any) -> None:
        self.answered_in.append(current_trace_id())

    def refused(self, *_: Any) -> None:
        self.refused_in.append(current_trace_id())


class TracedService:
    """The inference service on a port of its own, with a worker that is ready."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        variant = get_variant(NAME)
        models = Models([ModelCard(variant, network_cost(variant), None, None)])
        models.select([NAME])
        hold(models, "w", NAME)
        self.exporter = InMemorySpanExporter()
        self.pool = FakePool()
        self.observer = TraceIds()
        traces = OtelTraces("1.2.3", SimpleSpanProcessor(self.exporter), sampler)
        told = Observers([self.observer, traces])
        limits = Limits(max_batch_rows=4, max_queue_rows=4)
        self.dispatcher = Dispatcher(
            Scheduler(limits),
            self.pool,  # type: ignore[arg-type]
            models,
            told,
        )
        self.dispatcher.worker_ready("w", frozenset([NAME]))
        identity = ServerIdentity("rootserve", "1.2.3", Tensors())
        memory = MemoryGuard(2**30, lambda: 0)
        rooms = Inference(
            models, self.dispatcher, told, RequestLimits(4, 3, 2), Regions(), memory, traces
        )
        self.server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            InferenceService(identity, limits, Statistics(), None, rooms),
            CheckedServer(self.server, told, memory, 2**22),  # type: ignore[arg-type]
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
        report = Report(began_ns, time.monotonic_ns(), expired, engine="fake", precision="fp32")
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


async def started(service: TracedService) -> AsyncIterator[TracedService]:
    """``service``, serving; its end when the iterator goes on."""
    await service.server.start()
    yield service
    await service.channel.close()
    await service.server.stop(0)
    service.dispatcher.close()


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


def length_ns(span: ReadableSpan) -> int:
    assert span.end_time is not None
    assert span.start_time is not None
    return span.end_time - span.start_time
