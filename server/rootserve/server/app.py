"""The service put together: what there is, in which order it starts and in which it stops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import gc
import logging
import math
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import grpc
from tritonclient.grpc import service_pb2_grpc

from rootserve.server import logs, version
from rootserve.server.analysis.helper import Helper
from rootserve.server.analysis.jobs import Analyses, AnalysisLimits
from rootserve.server.background import background
from rootserve.server.control import ModelControl
from rootserve.server.core.scheduler import Scheduler
from rootserve.server.dispatcher import Dispatcher
from rootserve.server.engines.registry import preferred_engines
from rootserve.server.health import Health
from rootserve.server.machine import cpu_count, cuda_device_count
from rootserve.server.models import Models
from rootserve.server.monitoring import Monitoring
from rootserve.server.notify import Notifier
from rootserve.server.observers.access_log import AccessLog
from rootserve.server.observers.events import Observers
from rootserve.server.observers.explain import Explainer
from rootserve.server.observers.metrics_endpoint import MetricsEndpoint
from rootserve.server.observers.refusal_log import RefusalLog
from rootserve.server.observers.statistics import Statistics
from rootserve.server.observers.traces import Traces, current_trace_id
from rootserve.server.repository import Repository
from rootserve.server.security.authorize import Authorizer
from rootserve.server.security.tls import TlsFiles
from rootserve.server.settings import Settings
from rootserve.server.specs import StartError, scheduler_limits, worker_specs
from rootserve.server.starting import (
    cache_warning,
    open_datasets,
    open_models,
    open_protection,
    open_traces,
    protection_warning,
)
from rootserve.server.streams import announce, flush_streams
from rootserve.server.wire import services
from rootserve.server.wire.analysis import AnalysisService, ServingDefaults
from rootserve.server.wire.catalog import CatalogService
from rootserve.server.wire.explain import ExplainService
from rootserve.server.wire.handling import CheckedServer
from rootserve.server.wire.listening import authority_of, bind, server_options
from rootserve.server.workers.handle import WorkerSpec
from rootserve.server.workers.pool import WorkerPool
from rootserve.v1 import analysis_pb2_grpc

_log = logging.getLogger(__name__)

# The last answers are on their way for so long, before the connections close.
_LAST_WORDS_S = 0.1


def _serving_defaults(spec: WorkerSpec) -> ServingDefaults:
    """What the times of a model are told of that is not served: there, nothing was chosen yet."""
    engine = preferred_engines(spec.device)[0] if spec.engine == "auto" else spec.engine
    precision = "fp32" if spec.precision == "auto" else spec.precision
    return ServingDefaults(engine, precision, spec.max_batch_rows)


def _analyses(settings: Settings, pool: WorkerPool, observer: Observers) -> Analyses:
    """Analyses with one process per device, which stands still while the workers there compute.

    On the CPU it may use what all workers use.
    """
    threads: dict[str, int] = {}
    for spec in (worker.spec for worker in pool.workers.values()):
        threads[spec.device] = threads.get(spec.device, 0) + spec.threads
    helpers = [Helper(device, min(count, cpu_count())) for device, count in threads.items()]
    limits = AnalysisLimits(
        settings.analysis_max_jobs, settings.analysis_max_images, settings.analysis_max_mb * 2**20
    )
    analyses = Analyses(helpers, limits, observer)
    pool.on_busy = analyses.set_busy
    return analyses


def _control(
    settings: Settings,
    models: Models,
    repository: Repository,
    pool: WorkerPool,
    dispatcher: Dispatcher,
    observer: Observers,
) -> ModelControl | None:
    """Who loads and unloads models on request, if that is asked for."""
    if settings.model_control != "explicit":
        return None
    untrained = settings.untrained == "any"
    return ModelControl(models, pool, dispatcher, observer, repository, untrained=untrained)


async def serve(settings: Settings) -> NoReturn:
    """Serve until SIGTERM or SIGINT, then end the process with status 0; a second signal ends it at once.

    It also ends, with status 1, when its metrics endpoint has died.

    Raises:
        FamilyError, ModelSelectionError, SecurityError, StartError, WeightsError: if the service cannot
            start.
    """
    tls, authorizer = _protection(settings)
    repository, models = open_models(settings)
    specs = _worker_specs(settings, models)

    traces = open_traces(settings)
    explainer = Explainer(settings.explain) if settings.explain else None
    monitoring, statistics, refusal_log, observer = _observers(settings, models, traces, explainer)
    scheduler = Scheduler(scheduler_limits(settings, specs))
    pool = WorkerPool(specs, models, settings.load_timeout_s)
    dispatcher = Dispatcher(
        scheduler, pool, models, observer, max_bytes=settings.max_queue_mb * 2**20
    )
    analyses = _analyses(settings, pool, observer)
    health = Health(
        models, [services.INFERENCE], [services.ANALYSIS, services.CATALOG, services.EXPLAIN]
    )
    pool.events = dispatcher
    notifier = Notifier(models)
    pool.on_models_changed = functools.partial(
        _models_changed, dispatcher, health, monitoring, notifier
    )
    monitoring.follow(scheduler, pool)

    server = grpc.aio.server(options=server_options(settings))
    guard = services.memory_guard(settings)
    # Stands in for the server while services are added.
    checked: Any = CheckedServer(
        server, observer, guard, settings.max_message_mb * 2**20, authorizer
    )
    control = _control(settings, models, repository, pool, dispatcher, observer)
    inference = services.inference(
        settings, models, dispatcher, statistics, observer, control, guard, traces
    )
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(inference, checked)
    analysis_pb2_grpc.add_AnalysisServiceServicer_to_server(
        AnalysisService(models, open_datasets(settings), analyses, _serving_defaults(specs[0])),
        checked,
    )
    catalog = CatalogService(version(), models, pool, settings.limits(), scheduler.batch_rows)
    services.add_operations(
        checked, catalog, ExplainService(models, scheduler.durations, explainer), health
    )

    stop = _stop_on_signals()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_closing(traces))
        endpoint = stack.enter_context(_metrics_endpoint(settings, monitoring, stop))
        catalog.metrics_port = endpoint.port
        stack.callback(refusal_log.close)
        await stack.enter_async_context(background("the log of refusals", refusal_log.follow))
        credentials = await stack.enter_async_context(_credentials(tls))
        port = bind(server, authority_of(settings.host, settings.port), credentials)
        pool.start()
        stack.push_async_callback(pool.stop)
        stack.callback(dispatcher.close)
        stack.push_async_callback(analyses.close)
        await server.start()
        await stack.enter_async_context(background("the watchdog", notifier.keep_alive))
        _spare_the_collector()
        logs.tell_settings(settings)
        # Scripts read this line; it stays as it is.
        announce(
            f"listening grpc={authority_of(settings.host, port)} "
            f"metrics={authority_of(settings.host, endpoint.port)}"
        )
        notifier.listening()
        await stop.asked.wait()
        notifier.stopping()
        await _finish(settings, models, health, dispatcher, analyses)
    # All else is closed; whoever still asks is refused until the end.
    await asyncio.sleep(_LAST_WORDS_S)
    _log.info("stopped")
    _end(stop.status)


def _protection(settings: Settings) -> tuple[TlsFiles | None, Authorizer | None]:
    """As :func:`open_protection`; what others can reach unprotected is warned of."""
    if warning := protection_warning(settings):
        _log.warning("%s", warning)
    return open_protection(settings)


def _worker_specs(settings: Settings, models: Models) -> list[WorkerSpec]:
    if warning := cache_warning(settings):
        _log.warning("%s", warning)
    cuda_devices = 0 if settings.device == "cpu" else cuda_device_count()
    return worker_specs(settings, models, cuda_devices)


def _observers(
    settings: Settings, models: Models, traces: Traces | None, explainer: Explainer | None
) -> tuple[Monitoring, Statistics, RefusalLog, Observers]:
    """Who is told of requests: those that are asked or closed later, and all as one."""
    trace_id = current_trace_id if traces else None
    monitoring, statistics = Monitoring(models, trace_id), Statistics()
    refusal_log = RefusalLog(trace_id=trace_id)
    access_log = _access_log(settings, trace_id)
    told = (monitoring.metrics, statistics, refusal_log, traces, access_log, explainer)
    observer = Observers([one for one in told if one is not None])
    return monitoring, statistics, refusal_log, observer


def _access_log(settings: Settings, trace_id: Callable[[], str] | None) -> AccessLog | None:
    if not settings.logs_requests:
        return None
    slow_s = settings.slow_request_ms * 1e-3 or math.inf
    return AccessLog(every=settings.access_log == "on", slow_s=slow_s, trace_id=trace_id)


def _end(status: int) -> NoReturn:
    """End the process, and with it the connections.

    Not by ``server.stop``: requests that arrive while it runs are cancelled, and whoever sent them sees
    CANCELLED, which is not tried again. One whose connection closes sees UNAVAILABLE.
    """
    flush_streams()
    os._exit(status)


def _spare_the_collector() -> None:
    """Have the garbage collector look no more at what is there by now, and stays.

    A full collection stops the event loop: for some 50 ms if it goes through the objects of all modules.
    """
    gc.collect()
    gc.freeze()


def _models_changed(
    dispatcher: Dispatcher, health: Health, monitoring: Monitoring, notifier: Notifier
) -> None:
    dispatcher.models_changed()
    health.models_changed()
    monitoring.models_changed()
    notifier.models_changed()


async def _finish(
    settings: Settings,
    models: Models,
    health: Health,
    dispatcher: Dispatcher,
    analyses: Analyses,
) -> None:
    """Let load balancers look away, then refuse what comes and answer what was admitted.

    An analysis may have an hour to go: it is refused as well.
    """
    models.draining = True
    health.models_changed()
    if settings.grace_s > 0:
        _log.info("shutting down: requests are still served for %g s", settings.grace_s)
        await asyncio.sleep(settings.grace_s)
    _log.info("shutting down: finishing what was admitted")
    await analyses.close()
    try:
        await asyncio.wait_for(dispatcher.drain(), settings.drain_s)
    except TimeoutError:
        _log.warning("some requests were not finished within %g s", settings.drain_s)


class _Stop:
    """When the service is to end, and with which status."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.status = 0

    def fail(self) -> None:
        """End because something is gone that only another start brings back."""
        self.status = 1
        self.asked.set()


def _stop_on_signals() -> _Stop:
    stop = _Stop()

    def on_signal() -> None:
        if stop.asked.is_set():
            _log.warning("second signal: ending at once")
            os._exit(1)
        stop.asked.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


def _metrics_endpoint(settings: Settings, monitoring: Monitoring, stop: _Stop) -> MetricsEndpoint:
    """The endpoint, without which nobody knows how the service is: should it die, the service ends.

    Raises:
        StartError: if it cannot listen.
    """
    on_death = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, stop.fail)
    try:
        return monitoring.endpoint(settings.host, settings.metrics_port, on_death)
    except socket.gaierror as error:
        raise StartError(
            f"host: {settings.host} is no address of this machine: {error.strerror}"
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise StartError(f"host: {settings.host} is no address of this machine") from error
        raise StartError(
            f"metrics_port: cannot listen on {authority_of(settings.host, settings.metrics_port)}: "
            f"{os.strerror(error.errno or 0)}"
        ) from error


@contextlib.asynccontextmanager
async def _credentials(tls: TlsFiles | None) -> AsyncIterator[grpc.ServerCredentials | None]:
    """What the port needs; of files that are followed meanwhile."""
    if tls is None:
        yield None
        return
    async with background("the TLS files", tls.follow):
        yield tls.credentials()


@contextlib.asynccontextmanager
async def _closing(traces: Traces | None) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if traces is not None:
            await asyncio.to_thread(traces.close)
