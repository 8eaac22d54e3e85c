"""The service put together: what there is, in which order it starts and in which it stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from prometheus_client import CollectorRegistry, start_http_server
from rootserve.v1 import catalog_pb2, catalog_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from server import version
from server.core.scheduler import Scheduler
from server.dispatcher import Dispatcher
from server.engines.registry import default_engine
from server.health import Health
from server.machine import cpu_count, cuda_device_count
from server.models import Models, find_models
from server.observers.events import Observers
from server.observers.metrics import Metrics
from server.observers.statistics import Statistics
from server.settings import Settings
from server.wire.catalog import CatalogService
from server.wire.decoding import CheckedServer
from server.wire.inference import InferenceService, ServerIdentity
from server.wire.parse import RequestLimits
from server.workers.handle import WorkerSpec
from server.workers.pool import WorkerPool

_log = logging.getLogger(__name__)


class StartError(RuntimeError):
    """The service cannot start; one line that says why."""


def worker_specs(settings: Settings, models: Models, cuda_devices: int) -> list[WorkerSpec]:
    """The workers that ``settings`` ask for on a machine with ``cuda_devices``.

    Raises:
        StartError: if a GPU is asked for that is not there.
    """
    match settings.device:
        case "auto":
            devices = [f"cuda:{index}" for index in range(cuda_devices)]
        case "cpu":
            devices = []
        case "cuda":
            devices = [f"cuda:{index}" for index in range(cuda_devices)]
            if not devices:
                raise StartError("device: cuda came, but torch sees no CUDA device; use cpu")
        case names:
            devices = names.split(",")
            for device in devices:
                if int(device.removeprefix("cuda:")) >= cuda_devices:
                    raise StartError(
                        f"device: {device} came, but torch sees {cuda_devices} CUDA devices"
                    )
    card = models.served()[0].card
    limits = settings.limits()

    def spec(name: str, device: str, threads: int) -> WorkerSpec:
        return WorkerSpec(
            name=name,
            device=device,
            engine=default_engine(device) if settings.engine == "auto" else settings.engine,
            threads=threads,
            max_batch_rows=limits.max_batch_rows,
            image=card.image,
            classes=len(card.classes),
            slots=1 + limits.batches_ahead,
        )

    if devices:
        return [spec(device.replace(":", "-"), device, 0) for device in devices]
    threads = settings.threads or max(1, cpu_count() // settings.cpu_workers)
    return [spec(f"cpu-{index}", "cpu", threads) for index in range(settings.cpu_workers)]


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends the process at once.

    Raises:
        StartError, ModelSelectionError, WeightsError: if the service cannot start.
    """
    models = find_models(settings.weights)
    models.select(settings.models)
    cuda_devices = 0 if settings.device == "cpu" else cuda_device_count()
    specs = worker_specs(settings, models, cuda_devices)

    registry = CollectorRegistry()
    metrics = Metrics(registry)
    statistics = Statistics()
    observer = Observers([metrics, statistics])
    scheduler = Scheduler(settings.limits())
    pool = WorkerPool(specs, models)
    dispatcher = Dispatcher(scheduler, pool, models, observer)
    health = Health(models)
    pool.events = dispatcher
    pool.on_models_changed = health.models_changed
    metrics.follow_queues((model.card.name for model in models.served()), scheduler.rows_queued)

    size = settings.max_message_mb * 2**20
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", size),
            ("grpc.max_send_message_length", size),
            ("grpc.so_reuseport", 0),
        ]
    )
    checked: Any = CheckedServer(server)  # stands in for the server while services are added
    request_limits = RequestLimits(
        settings.max_batch_rows, settings.priority_levels, settings.default_priority
    )
    identity = ServerIdentity("rootserve", version(), request_limits)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
        InferenceService(identity, models, dispatcher, statistics, observer), checked
    )
    catalog_pb2_grpc.add_CatalogServiceServicer_to_server(
        CatalogService(version(), models, pool, settings.limits()), checked
    )
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, checked)
    services = (
        service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name,
        catalog_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name,
        health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
        reflection.SERVICE_NAME,
    )
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
        reflection.aio.ReflectionServicer(services), checked
    )

    stop = _stop_on_signals()
    async with contextlib.AsyncExitStack() as stack:
        await health.publish()
        metrics_port = stack.enter_context(_metrics_endpoint(settings, registry))
        await stack.enter_async_context(_background(health.follow()))
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        port = _bind(server, host, settings.port)
        pool.start()
        stack.push_async_callback(pool.stop)
        stack.callback(dispatcher.close)
        await server.start()
        stack.push_async_callback(server.stop, 0)
        # Scripts read this line; it stays as it is.
        print(
            f"listening grpc={host}:{port} metrics={host}:{metrics_port}",
            flush=True,
        )
        await stop.wait()
        _log.info("shutting down: finishing what was admitted")
        await health.drain()
        try:
            await asyncio.wait_for(dispatcher.drain(), settings.drain_s)
        except TimeoutError:
            _log.warning("some requests were not finished within %g s", settings.drain_s)
        await server.stop(grace=1.0)
    _log.info("stopped")


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            _log.warning("second signal: ending at once")
            os._exit(1)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


@contextlib.contextmanager
def _metrics_endpoint(settings: Settings, registry: CollectorRegistry) -> Iterator[int]:
    """Serve /metrics from a thread of its own; gives the port."""
    try:
        httpd, thread = start_http_server(settings.metrics_port, settings.host, registry)
    except OSError as error:
        raise StartError(
            f"metrics_port: cannot listen on {settings.host}:{settings.metrics_port}: "
            f"{error.strerror}"
        ) from error
    try:
        yield httpd.server_port
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


@contextlib.asynccontextmanager
async def _background(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _bind(server: grpc.aio.Server, host: str, port: int) -> int:
    try:
        return server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise StartError(
            f"port: cannot listen on {host}:{port}; is it in use, or the address not of this machine?"
        ) from error
