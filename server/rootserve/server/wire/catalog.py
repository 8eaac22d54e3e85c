"""rootserve.v1.CatalogService: models with cost and accuracy, workers, machine."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from rootmodels.family import UNNAMED_CLASSES
from rootmodels.processor import cpu_name
from rootserve.server.core.scheduler import Limits
from rootserve.server.families import VirtualModel, virtual_models
from rootserve.server.machine import cpu_count
from rootserve.server.models import Model, Models, State
from rootserve.server.workers.pool import WorkerPool
from rootserve.v1 import catalog_pb2 as pb
from rootserve.v1 import catalog_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

_STATES = {
    State.UNLOADED: pb.MODEL_STATE_UNLOADED,
    State.LOADING: pb.MODEL_STATE_LOADING,
    State.READY: pb.MODEL_STATE_READY,
    State.FAILED: pb.MODEL_STATE_FAILED,
}


class CatalogService(catalog_pb2_grpc.CatalogServiceServicer):
    """Answers from memory. Set ``metrics_port`` once it is known."""

    metrics_port = 0

    def __init__(
        self,
        version: str,
        models: Models,
        pool: WorkerPool,
        limits: Limits,
        batch_rows: Callable[[str], int],
    ) -> None:
        """``batch_rows`` tells how many rows a batch of a model has at most; 0 for one that no worker has."""
        self._version = version
        self._models = models
        self._pool = pool
        self._limits = limits
        self._batch_rows = batch_rows
        self._started_ns = time.time_ns()

    async def ListModels(  # noqa: N802 - the protocol's name
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Every variant of the table, and the families that are served as one model."""
        return pb.ListModelsResponse(
            models=[
                model_message(model, self._batch_rows(model.card.name)) for model in self._models
            ],
            families=[family_message(family) for family in virtual_models(self._models)],
        )

    async def GetServerInfo(  # noqa: N802
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        """Version, limits, machine and workers."""
        started_at = Timestamp()
        started_at.FromNanoseconds(self._started_ns)
        return pb.GetServerInfoResponse(
            version=self._version,
            started_at=started_at,
            platform=platform.platform(),
            cpu=cpu_name(),
            cpu_count=cpu_count(),
            libraries={**self._pool.libraries, "grpcio": grpc.__version__},
            max_batch_rows=self._limits.max_batch_rows,
            max_delay_us=round(self._limits.max_delay_s * 1e6),
            max_queue_rows=self._limits.max_queue_rows,
            workers=[
                pb.Worker(
                    name=worker.spec.name,
                    device=worker.spec.device,
                    threads=worker.spec.threads,
                    pid=worker.handle.pid if worker.handle else 0,
                    ready=worker.state.ready,
                    device_name=worker.device_name,
                )
                for worker in self._pool.workers.values()
            ],
            metrics_port=self.metrics_port,
        )


def family_message(family: VirtualModel) -> pb.Model:
    """A family as the protocol has it."""
    return pb.Model(
        name=family.name,
        family=family.family,
        trained=True,
        accuracy=family.accuracy,
        engine=family.engine,
        precision=family.precision,
        state=_STATES[family.state],
        state_reason=family.state_reason,
        image_size=family.image[1],
        short_side=family.members[0].card.family.short_side(family.image[1]),
        classes=() if family.classes is UNNAMED_CLASSES else family.classes,
        members=[member.card.name for member in family.members],
    )


def model_message(model: Model, batch_rows: int = 0) -> pb.Model:
    """A model as the protocol has it; ``batch_rows`` is 0 when no worker has it."""
    card = model.card
    message = pb.Model(
        name=card.name,
        family=card.variant.family,
        topology=card.variant.topology,
        params=card.cost.params,
        macs=card.cost.macs,
        flops_paper=card.cost.flops_paper,
        trained=card.info is not None,
        engine=model.engine,
        precision=model.precision,
        state=_STATES[model.state],
        state_reason=model.state_reason,
        image_size=card.image[1],
        short_side=card.family.short_side(card.image[1]),
        paper_rows=card.family.paper_rows or 0,
        batch_rows=batch_rows,
        version=card.version,
        weights_sha256=card.weights_sha256,
        generation=card.generation,
        # A thousand numbers for each variant would tell nobody anything.
        classes=() if card.classes is UNNAMED_CLASSES else card.classes,
    )
    if card.accuracy is not None:
        message.accuracy = card.accuracy
    if (paper := card.variant.paper) is not None:
        message.paper.CopyFrom(
            pb.PaperFigures(
                accuracy=paper.accuracy,
                cpu_ms=paper.cpu_ms,
                gpu_ms=paper.gpu_ms,
                top5_accuracy=paper.top5,
            )
        )
    return message
