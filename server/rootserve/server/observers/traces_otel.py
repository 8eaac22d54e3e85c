"""Traces as OpenTelemetry spans: built from the times that are told, sent by OTLP in the background."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    ParentBasedTraceIdRatio,
    Sampler,
)
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from typing_extensions import override

from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Batch
from rootserve.server.observers.events import Refusal
from rootserve.server.observers.traces import Traces, TracesError
from rootserve.server.pending import Pending, Report, RequestTrace, Timeline
from rootserve.server.refusals import Reason

_PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_W3C_KEYS = frozenset({"traceparent", "tracestate"})
_FLUSH_S = 3.0
_MAX_ID_LENGTH = 128
_MAX_TEXT_LENGTH = 500
# A batch has as many links as requests; OpenTelemetry keeps 128 by default, and a batch up to 1,024.
_MOST_LINKS = 1024
# The codes that are the server's fault, by OpenTelemetry's conventions for gRPC servers.
_SERVER_ERRORS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)


def open_traces(version: str, endpoint: str | None, ratio: float | None) -> OtelTraces:
    """Traces that are sent to ``endpoint`` by OTLP over gRPC.

    What is None is taken from the OTEL_ variables, as are all finer settings.

    Raises:
        TracesError: if these make no sense.
    """
    for variable in _PROTOCOL_VARIABLES:
        protocol = os.environ.get(variable, "grpc")
        if protocol != "grpc":
            raise TracesError(f"{variable}: {protocol!r} came, expected grpc")
    try:
        exporter = OTLPSpanExporter(endpoint=endpoint)
        processor = BatchSpanProcessor(exporter)
        sampler = None if ratio is None else ParentBasedTraceIdRatio(ratio)
        return OtelTraces(version, processor, sampler, exporter)
    except Exception as error:  # whatever the library thinks of its variables
        raise TracesError(
            f"traces: OpenTelemetry cannot be set up: {error}; see the variables OTEL_*"
        ) from error


class OtelTraces(Traces):
    """An observer that writes a span of each call and of each batch.

    A batch has a trace of its own, for it belongs to several callers: it links to the requests in it, and
    they to it. It is written if one of them is. ``sampler`` decides that of a request; None leaves it
    to OTEL_TRACES_SAMPLER.
    """

    def __init__(
        self,
        version: str,
        processor: SpanProcessor,
        sampler: Sampler | None = None,
        exporter: OTLPSpanExporter | None = None,
    ) -> None:
        self._processor = processor
        self._exporter = exporter
        own = Resource({"service.name": "rootserve", "service.version": version})
        resource = Resource.create(own.merge(OTELResourceDetector().detect()).attributes)

        def tracer(sampler: Sampler | None, limits: SpanLimits | None = None) -> Tracer:
            provider = TracerProvider(sampler, resource, shutdown_on_exit=False, span_limits=limits)
            provider.add_span_processor(processor)
            return provider.get_tracer("rootserve", version)

        self._requests = tracer(sampler)
        self._batches = tracer(ALWAYS_ON, SpanLimits(max_links=_MOST_LINKS))
        self._propagator = TraceContextTextMapPropagator()

    @override
    def begin(
        self, method: str, metadata: Iterable[tuple[str, str | bytes]], request_id: str
    ) -> RequestTrace | None:
        began_ns = time.monotonic_ns()
        since_epoch_ns = time.time_ns() - began_ns
        carrier = {key: value for key, value in metadata if key in _W3C_KEYS}
        method = method.removeprefix("/")
        span = self._requests.start_span(
            method,
            self._propagator.extract(carrier, Context()),
            SpanKind.SERVER,
            {"rpc.system.name": "grpc", "rpc.method": method},
            start_time=began_ns + since_epoch_ns,
        )
        if not span.is_recording():
            return None
        if request_id:
            span.set_attribute("rootserve.request.id", request_id[:_MAX_ID_LENGTH])
        return OtelRequestTrace(self._requests, span, began_ns, since_epoch_ns)

    @override
    def batch_ended(self, batch: Batch, report: Report, requests: Sequence[Pending | None]) -> None:
        own = [
            (position, request, pending.trace)
            for position, (request, pending) in enumerate(
                zip(batch.requests, requests, strict=True)
            )
            if pending is not None and isinstance(pending.trace, OtelRequestTrace)
        ]
        if not own:
            return
        since_epoch_ns = time.time_ns() - time.monotonic_ns()
        closed_ns = int(batch.formed_s * 1e9)
        span = self._batches.start_span(
            "batch",
            Context(),
            attributes={
                "rootserve.model": batch.model,
                "rootserve.batch.rows": batch.rows,
                "rootserve.batch.requests": len(batch.requests),
                **_computed_by(batch, report),
            },
            links=[Link(trace.context) for _, _, trace in own],
            start_time=closed_ns + since_epoch_ns,
        )
        if report.began_ns:
            compute = self._batches.start_span(
                "compute",
                set_span_in_context(span, Context()),
                start_time=report.began_ns + since_epoch_ns,
            )
            compute.end(report.ended_ns + since_epoch_ns)
        else:
            _set_error(span, Reason.MODEL_FAILURE)
        span.end(report.ended_ns + since_epoch_ns)
        for position, request, trace in own:
            trace.in_batch(
                request, batch, report, span.get_span_context(), late=position in report.expired
            )

    @override
    def answered(self, pending: Pending, timeline: Timeline) -> None:
        if isinstance(pending.trace, OtelRequestTrace):
            pending.trace.end(pending.request.model, "OK")

    @override
    def refused(self, refusal: Refusal) -> None:
        if isinstance(refusal.trace, OtelRequestTrace):
            refusal.trace.refused(refusal)

    @override
    def close(self) -> None:
        # The library itself would wait up to half a minute for a receiver that does not answer.
        flush = threading.Thread(target=self._processor.shutdown, daemon=True)
        flush.start()
        flush.join(_FLUSH_S)
        if flush.is_alive() and self._exporter is not None:
            self._exporter.shutdown()


class OtelRequestTrace:
    """The span of a call and its children: a :class:`rootserve.server.pending.RequestTrace`."""

    def __init__(self, tracer: Tracer, span: Span, began_ns: int, since_epoch_ns: int) -> None:
        self._tracer = tracer
        self._span = span
        self._in_span = set_span_in_context(span, Context())
        self._began_ns = began_ns
        # The same for all of them: children lie within their parent even if the clock is set meanwhile.
        self._since_epoch_ns = since_epoch_ns
        self.context = span.get_span_context()
        self.trace_id = format_trace_id(self.context.trace_id)

    def in_batch(
        self, request: Request, batch: Batch, report: Report, context: SpanContext, *, late: bool
    ) -> None:
        """It was in ``batch``, whose span has ``context``; ``late``: and was not computed."""
        self._span.add_link(context)
        self._span.set_attribute("rootserve.rows", request.rows)
        if request.attempts:
            self._span.set_attribute("rootserve.workers_lost", request.attempts)
        closed_ns = int(batch.formed_s * 1e9)
        self._child("queue", int(request.arrived_s * 1e9), closed_ns)
        if not report.began_ns:
            self._child("batch", closed_ns, report.ended_ns, Reason.MODEL_FAILURE)
        elif late:
            self._child("batch wait", closed_ns, report.began_ns, Reason.DEADLINE_EXPIRED)
        else:
            self._child("batch wait", closed_ns, report.began_ns)
            by = _computed_by(batch, report)
            self._child("compute", report.began_ns, report.ended_ns, attributes=by)

    def refused(self, refusal: Refusal) -> None:
        """It got no answer."""
        if refusal.left_queue_ns:
            self._child("queue", self._began_ns, refusal.left_queue_ns)
        self._span.set_attribute("error.type", refusal.reason.value)
        if refusal.code in _SERVER_ERRORS:
            self._span.set_status(Status(StatusCode.ERROR, refusal.message[:_MAX_TEXT_LENGTH]))
        self.end(refusal.model, refusal.code)

    def _child(
        self,
        name: str,
        began_ns: int,
        ended_ns: int,
        reason: Reason | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        span = self._tracer.start_span(
            name,
            self._in_span,
            attributes=attributes,
            start_time=began_ns + self._since_epoch_ns,
        )
        if reason is not None:
            _set_error(span, reason)
        span.end(ended_ns + self._since_epoch_ns)

    def end(self, model: str, code: str) -> None:
        """The call ended with the status ``code``."""
        if model:
            self._span.set_attribute("rootserve.model", model)
        self._span.set_attribute("rpc.response.status_code", code)
        self._span.end(time.monotonic_ns() + self._since_epoch_ns)


def _computed_by(batch: Batch, report: Report) -> dict[str, str]:
    return {
        "rootserve.worker": batch.worker,
        "rootserve.engine": report.engine,
        "rootserve.precision": report.precision,
    }


def _set_error(span: Span, reason: Reason) -> None:
    span.set_attribute("error.type", reason.value)
    span.set_status(Status(StatusCode.ERROR))
