"""The service put together: what there is, in which order it starts and in which it stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from prometheus_client import CollectorRegistry, start_http_server
from rootserve.v1 import catalog_pb2, catalog_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from server import version
from server.control import ModelControl
from server.core.scheduler import Scheduler
from server.dispatcher import Dispatcher
from server.engines.registry import default_engine
from server.health import Health
from server.machine import cpu_count, cuda_device_count
from server.models import Models, find_models
from server.observers.events import Observers
from server.observers.metrics import Metrics
from server.observers.refusal_log import RefusalLog
from server.observers.statistics import Statistics
from server.security.authorize import Authorizer
from server.security.exposure import exposure_warning
from server.security.tls import server_credentials
from server.security.tokens import TokenStore
from server.settings import Settings
from server.wire.catalog import CatalogService
from server.wire.decoding import CheckedServer
from server.wire.guard import Guard
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
            precision=settings.precision,
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
        StartError, SecurityError, ModelSelectionError, WeightsError: if the service cannot start.
    """
    credentials, authorizer = _protection(settings)
    models = find_models(settings.weights)
    models.select(settings.models)
    cuda_devices = 0 if settings.device == "cpu" else cuda_device_count()
    specs = worker_specs(settings, models, cuda_devices)

    registry = CollectorRegistry()
    metrics = Metrics(registry)
    statistics = Statistics()
    refusal_log = RefusalLog()
    observer = Observers([metrics, statistics, refusal_log])
    scheduler = Scheduler(settings.limits())
    pool = WorkerPool(specs, models, settings.load_timeout_s)
    dispatcher = Dispatcher(scheduler, pool, models, observer)
    health = Health(models)
    pool.events = dispatcher
    pool.on_models_changed = health.models_changed
    metrics.follow_queues((model.card.name for model in models.served()), scheduler.rows_queued)

    server = grpc.aio.server(options=_server_options(settings))
    guard = Guard(authorizer, observer) if authorizer else None
    checked: Any = CheckedServer(server, guard)  # stands in for the server while services are added
    request_limits = RequestLimits(
        settings.max_batch_rows, settings.priority_levels, settings.default_priority
    )
    control = None
    if settings.model_control == "explicit":
        control = ModelControl(models, pool, dispatcher, settings.weights)
    identity = ServerIdentity("rootserve", version(), request_limits)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
        InferenceService(identity, models, dispatcher, statistics, observer, control), checked
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
        stack.callback(refusal_log.close)
        await stack.enter_async_context(_background(refusal_log.follow()))
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        port = _bind(server, host, settings.port, credentials)
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
        await _finish(settings, models, health, dispatcher)
        await server.stop(grace=1.0)
    _log.info("stopped")


async def _finish(
    settings: Settings, models: Models, health: Health, dispatcher: Dispatcher
) -> None:
    """Let load balancers look away, then refuse what comes and answer what was admitted."""
    models.draining = True
    await health.publish()
    if settings.grace_s > 0:
        _log.info("shutting down: requests are still served for %g s", settings.grace_s)
        await asyncio.sleep(settings.grace_s)
    _log.info("shutting down: finishing what was admitted")
    try:
        await asyncio.wait_for(dispatcher.drain(), settings.drain_s)
    except TimeoutError:
        _log.warning("some requests were not finished within %g s", settings.drain_s)


def _protection(settings: Settings) -> tuple[grpc.ServerCredentials | None, Authorizer | None]:
    """TLS and tokens as asked for, and a word to the operator where they are missing."""
    credentials = authorizer = None
    if settings.tls_cert and settings.tls_key:
        credentials = server_credentials(
            settings.tls_cert, settings.tls_key, settings.tls_client_ca
        )
    if settings.token_file:
        authorizer = Authorizer(TokenStore(settings.token_file, time.monotonic))
    warning = exposure_warning(
        settings.host,
        has_tls=credentials is not None,
        has_client_ca=settings.tls_client_ca is not None,
        has_tokens=authorizer is not None,
    )
    if warning:
        _log.warning("%s", warning)
    return credentials, authorizer


def _server_options(settings: Settings) -> list[tuple[str, int]]:
    size = settings.max_message_mb * 2**20
    options = [
        ("grpc.max_receive_message_length", size),
        ("grpc.max_send_message_length", size),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.so_reuseport", 0),
    ]
    if settings.max_connection_age_s:
        age_ms = max(1, round(settings.max_connection_age_s * 1000))
        grace_ms = min(round(settings.drain_s * 1000), 2**31 - 1)
        options.append(("grpc.max_connection_age_ms", age_ms))
        options.append(("grpc.max_connection_age_grace_ms", grace_ms))
    return options


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


def _bind(
    server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None
) -> int:
    try:
        if credentials:
            return server.add_secure_port(f"{host}:{port}", credentials)
        return server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise StartError(
            f"port: cannot listen on {host}:{port}; is it in use, or the address not of this machine?"
        ) from error
