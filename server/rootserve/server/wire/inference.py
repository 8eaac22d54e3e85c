"""inference.GRPCInferenceService: the Open Inference Protocol and Triton's common extensions."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as oip

from rootserve.server.control import ModelControl
from rootserve.server.core.scheduler import Limits
from rootserve.server.families import find, interface_of, virtual_models
from rootserve.server.observers.statistics import Statistics
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire import describe
from rootserve.server.wire.callers import caller_of
from rootserve.server.wire.find import find_model
from rootserve.server.wire.infer import Inference, InferService
from rootserve.server.wire.load_parameters import parse_load

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """Who answers, and what it shows of its models."""

    name: str
    version: str
    tensors: describe.Tensors


class InferenceService(InferService):
    """What the protocol has beside ModelInfer: health, metadata, statistics, models, shared memory."""

    def __init__(
        self,
        identity: ServerIdentity,
        scheduler_limits: Limits,
        statistics: Statistics,
        control: ModelControl | None,
        inference: Inference,
    ) -> None:
        super().__init__(inference)
        self._identity = identity
        self._models = inference.models
        self._limits = scheduler_limits
        self._statistics = statistics
        self._control = control
        self._regions = inference.regions

    # Health and metadata.

    async def ServerLive(  # noqa: N802 - the protocol's name
        self, request: oip.ServerLiveRequest, context: Context
    ) -> oip.ServerLiveResponse:
        """Whether the process answers at all."""
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(  # noqa: N802
        self, request: oip.ServerReadyRequest, context: Context
    ) -> oip.ServerReadyResponse:
        """Whether every served model is ready, and will be a moment longer."""
        return oip.ServerReadyResponse(ready=self._models.is_serving)

    async def ModelReady(  # noqa: N802
        self, request: oip.ModelReadyRequest, context: Context
    ) -> oip.ModelReadyResponse:
        """Whether one model is ready; an unknown one, or a version of it, is not."""
        model = find(self._models, request.name)
        ready = (
            model is not None
            and model.is_ready
            and request.version in ("", interface_of(model).version)
            and not self._models.draining
        )
        return oip.ModelReadyResponse(ready=ready)

    async def ServerMetadata(  # noqa: N802
        self, request: oip.ServerMetadataRequest, context: Context
    ) -> oip.ServerMetadataResponse:
        """Name, version and protocol extensions."""
        return oip.ServerMetadataResponse(
            name=self._identity.name,
            version=self._identity.version,
            extensions=describe.extensions(
                control=self._control is not None, shared_memory=self._regions.enabled
            ),
        )

    async def ModelMetadata(  # noqa: N802
        self, request: oip.ModelMetadataRequest, context: Context
    ) -> oip.ModelMetadataResponse:
        """Tensors of one model."""
        model = find_model(self._models, request.name, request.version)
        return describe.model_metadata(model, self._identity.tensors)

    async def ModelConfig(  # noqa: N802
        self, request: oip.ModelConfigRequest, context: Context
    ) -> oip.ModelConfigResponse:
        """One model's configuration in Triton's terms."""
        model = find_model(self._models, request.name, request.version)
        return describe.model_config(model, self._limits, self._identity.tensors)

    async def ModelStatistics(  # noqa: N802
        self, request: oip.ModelStatisticsRequest, context: Context
    ) -> oip.ModelStatisticsResponse:
        """Counts and times of one model, or of all when no name is given."""
        if request.name:
            chosen = [find_model(self._models, request.name, request.version)]
        else:
            chosen = [*self._models.served(), *virtual_models(self._models)]
        seen = [interface_of(model) for model in chosen]
        return oip.ModelStatisticsResponse(
            model_stats=[
                describe.model_statistics(
                    one.name, one.version, self._statistics.by_model[one.name]
                )
                for one in seen
            ]
        )

    async def RepositoryIndex(  # noqa: N802
        self, request: oip.RepositoryIndexRequest, context: Context
    ) -> oip.RepositoryIndexResponse:
        """Every model that is known, or only the ready ones."""
        return describe.repository_index(self._models, only_ready=request.ready)

    async def RepositoryModelLoad(  # noqa: N802
        self, request: oip.RepositoryModelLoadRequest, context: Context
    ) -> oip.RepositoryModelLoadResponse:
        """Load a model, swap in weights as they are now in the weights folder, or go back to those before."""
        control = self._require_control()
        wish = parse_load(request)
        name, caller = request.model_name, caller_of(context)
        # Once begun it is carried out, whether or not the caller waits for it.
        await asyncio.shield(
            asyncio.ensure_future(
                control.roll_back(name, caller)
                if wish.rollback
                else control.load(name, caller, wish.version)
            )
        )
        return oip.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(  # noqa: N802
        self, request: oip.RepositoryModelUnloadRequest, context: Context
    ) -> oip.RepositoryModelUnloadResponse:
        """Serve a model no more, once what waits for it is answered."""
        control = self._require_control()
        await asyncio.shield(
            asyncio.ensure_future(control.unload(request.model_name, caller_of(context)))
        )
        return oip.RepositoryModelUnloadResponse()

    def _require_control(self) -> ModelControl:
        if self._control is None:
            text = (
                "models are not loaded on request; start the server with --model-control explicit"
            )
            raise RefusalError(Reason.CONTROL_OFF, text)
        return self._control

    # Shared memory.

    async def SystemSharedMemoryRegister(  # noqa: N802
        self, request: oip.SystemSharedMemoryRegisterRequest, context: Context
    ) -> oip.SystemSharedMemoryRegisterResponse:
        """Take a region under /dev/shm for tensors."""
        self._regions.register(request.name, request.key, request.offset, request.byte_size)
        return oip.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(  # noqa: N802
        self, request: oip.SystemSharedMemoryUnregisterRequest, context: Context
    ) -> oip.SystemSharedMemoryUnregisterResponse:
        """Forget one region, or all of them when no name is given."""
        self._regions.unregister(request.name)
        return oip.SystemSharedMemoryUnregisterResponse()

    async def SystemSharedMemoryStatus(  # noqa: N802
        self, request: oip.SystemSharedMemoryStatusRequest, context: Context
    ) -> oip.SystemSharedMemoryStatusResponse:
        """What is registered."""
        response = oip.SystemSharedMemoryStatusResponse()
        for region in self._regions.status(request.name):
            status = response.regions[region.name]
            status.name, status.key = region.name, region.key
            status.offset, status.byte_size = region.offset, region.byte_size
        return response

    # Of CUDA shared memory nothing is ever registered, and clients that begin by forgetting all may.

    async def CudaSharedMemoryUnregister(  # noqa: N802
        self, request: oip.CudaSharedMemoryUnregisterRequest, context: Context
    ) -> oip.CudaSharedMemoryUnregisterResponse:
        """There is nothing to forget."""
        return oip.CudaSharedMemoryUnregisterResponse()

    async def CudaSharedMemoryStatus(  # noqa: N802
        self, request: oip.CudaSharedMemoryStatusRequest, context: Context
    ) -> oip.CudaSharedMemoryStatusResponse:
        """Nothing is registered."""
        return oip.CudaSharedMemoryStatusResponse()
