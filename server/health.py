"""grpc.health.v1: "" for the whole server, and each model under its name."""

from __future__ import annotations

import asyncio

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from server.models import Models

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """Keeps the health service true to the state of the models."""

    def __init__(self, models: Models) -> None:
        self.servicer = health_aio.HealthServicer()
        self._models = models
        self._changed = asyncio.Event()

    async def follow(self) -> None:
        """Publish the state now and after each :meth:`models_changed`; runs until cancelled."""
        while True:
            self._changed.clear()
            await self.publish()
            await self._changed.wait()

    def models_changed(self) -> None:
        """Publish soon."""
        self._changed.set()

    async def publish(self) -> None:
        """Publish the state now.

        Once before the server starts: the servicer says SERVING for "" from its creation.
        """
        await self._set("", self._models.all_ready)
        for model in self._models:
            await self._set(model.card.name, model.is_ready)

    async def _set(self, service: str, serving: bool) -> None:
        status = _SERVING if serving and not self._models.draining else _NOT_SERVING
        await self.servicer.set(service, status)
