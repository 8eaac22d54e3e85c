"""grpc.health.v1: "" for the whole server, and each service and each model under its name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

from rootserve.server.families import find
from rootserve.server.models import Models
from rootserve.server.refusals import Reason, RefusalError

Context = grpc.aio.ServicerContext[Any, Any]


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Answers from the state of the models as it is.

    ``inference`` are the services that need them, ``others`` those that answer as long as the server runs.
    """

    def __init__(self, models: Models, inference: Iterable[str], others: Iterable[str]) -> None:
        self._models = models
        self._inference = frozenset(("", *inference))
        self._others = frozenset(others)
        self._changed = asyncio.Event()

    def models_changed(self) -> None:
        """Tell those who watch."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(  # noqa: N802 - the protocol's name
        self, request: pb.HealthCheckRequest, context: Context
    ) -> pb.HealthCheckResponse:
        """The state of one service."""
        status = self._status(request.service)
        if status == pb.HealthCheckResponse.SERVICE_UNKNOWN:
            raise RefusalError(Reason.UNKNOWN_SERVICE, "no service or model has this name")
        return pb.HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802
        self, request: pb.HealthCheckRequest, context: Context
    ) -> AsyncIterator[pb.HealthCheckResponse]:
        """The state of one service, and each that it changes to."""
        told = None
        while True:
            changed = self._changed
            status = self._status(request.service)
            if status != told:
                yield pb.HealthCheckResponse(status=status)
                told = status
            await changed.wait()

    def _status(self, service: str) -> pb.HealthCheckResponse.ServingStatus:
        if service in self._inference:
            serving = self._models.is_serving
        elif service in self._others:
            serving = not self._models.draining
        else:
            model = find(self._models, service)
            if model is None:
                return pb.HealthCheckResponse.SERVICE_UNKNOWN
            serving = model.is_ready and not self._models.draining
        statuses = pb.HealthCheckResponse
        return statuses.SERVING if serving else statuses.NOT_SERVING
