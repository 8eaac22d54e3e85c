"""The services put together, and their names."""

from __future__ import annotations

import time
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2

from rootserve.server import version
from rootserve.server.control import ModelControl
from rootserve.server.dispatcher import Dispatcher
from rootserve.server.families import virtual_models
from rootserve.server.models import Models
from rootserve.server.observers.events import Observer
from rootserve.server.observers.statistics import Statistics
from rootserve.server.observers.traces import Traces
from rootserve.server.settings import Settings
from rootserve.server.wire.catalog import CatalogService
from rootserve.server.wire.describe import Tensors
from rootserve.server.wire.explain import ExplainService
from rootserve.server.wire.infer import Inference
from rootserve.server.wire.inference import InferenceService, ServerIdentity
from rootserve.server.wire.load_report import LoadReports
from rootserve.server.wire.memory_guard import Memory, MemoryGuard
from rootserve.server.wire.parse_outputs import RequestLimits
from rootserve.server.wire.reflection import add_reflection
from rootserve.server.wire.shared_memory import Regions
from rootserve.v1 import (
    analysis_pb2,
    catalog_pb2,
    catalog_pb2_grpc,
    explain_pb2,
    explain_pb2_grpc,
)

INFERENCE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
CATALOG = catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name
EXPLAIN = explain_pb2.DESCRIPTOR.services_by_name["ExplainService"].full_name
ANALYSIS = analysis_pb2.DESCRIPTOR.services_by_name["AnalysisService"].full_name
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


def memory_guard(settings: Settings) -> MemoryGuard:
    """A bound for all that callers send: what may be admitted, and beside it three messages on their way.

    One that comes is held up to three times: as gRPC received it, as bytes, decoded.
    """
    memory = Memory()
    limit = (settings.max_queue_mb + 3 * settings.max_message_mb) * 2**20
    return MemoryGuard(limit, memory.used, memory.release)


def inference(  # noqa: PLR0913, PLR0917 - one for each room it speaks to
    settings: Settings,
    models: Models,
    dispatcher: Dispatcher,
    statistics: Statistics,
    observer: Observer,
    control: ModelControl | None,
    memory: MemoryGuard,
    traces: Traces | None,
) -> InferenceService:
    """The Open Inference Protocol as ``settings`` want it."""
    tensors = Tensors.all() if settings.listed_tensors == "all" else Tensors()
    limits = RequestLimits(
        settings.max_batch_rows,
        settings.priority_levels,
        settings.default_priority,
        settings.max_image_mb * 2**20,
        tensors.outputs,
    )
    regions = Regions(enabled=settings.shared_memory == "system")
    reports = None
    if settings.load_reports == "orca":

        def names() -> list[str]:
            families = [family.name for family in virtual_models(models)]
            return [*(model.card.name for model in models.served()), *families]

        reports = LoadReports(names, dispatcher.backlog_s, time.monotonic)
    rooms = Inference(
        models,
        dispatcher,
        observer,
        limits,
        regions,
        memory,
        traces,
        names_callers=settings.logs_requests,
        caller_key=settings.caller_key,
        load_reports=reports,
    )
    identity = ServerIdentity("rootserve", version(), tensors)
    return InferenceService(identity, dispatcher.limits, statistics, control, rooms)


def add_operations(
    server: Any,
    catalog: CatalogService,
    explain: ExplainService,
    health: health_pb2_grpc.HealthServicer,
) -> None:
    """Add the services that tell of the server."""
    explain_pb2_grpc.add_ExplainServiceServicer_to_server(explain, server)
    catalog_pb2_grpc.add_CatalogServiceServicer_to_server(catalog, server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    add_reflection(server, (INFERENCE, CATALOG, EXPLAIN, ANALYSIS, _HEALTH))
