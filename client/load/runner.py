"""Runs a load from its first request to its result."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from client.errors import InputError, ServerError
from client.inference import Client
from client.load.caller import Caller
from client.load.closed_loop import ClosedLoop
from client.load.open_loop import OpenLoop
from client.load.options import LoadOptions
from client.load.pacer import schedule_for
from client.load.recording import LoadResult, Recorder, Snapshot
from client.load.requests import images_needed, random_images, serialized_requests

WATCH_EVERY_S = 0.5
# An interrupted run waits this long for what is under way before it cuts it off.
_INTERRUPTED_GRACE_S = 1.0
# Codes with which a server would refuse every further request as well.
_HOPELESS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)


async def run_load(
    options: LoadOptions,
    images: NDArray[np.uint8] | None = None,
    *,
    stop: asyncio.Event | None = None,
    watch: Callable[[Snapshot], None] | None = None,
) -> LoadResult:
    """Put a model under load and measure it.

    The run is bounded by warm-up + duration + timeout. A failed request is counted by its code
    and never ends the run; only a first request, sent before the warm-up and counted nowhere,
    may show that none could succeed.

    Args:
        options: What to do.
        images: uint8 [N, 3, H, W], repeated as needed; random ones of the model's size when None.
        stop: Set it to end the run early; the result covers what was measured until then.
        watch: Called every half second while requests are sent. Its time is taken from them.

    Raises:
        Unreachable: No server answers at the address.
        ServerError: The server knows no such model, or refuses such requests altogether.
        InputError: The images have another shape or a request would be too large.
    """
    stop = stop or asyncio.Event()
    async with Client(
        options.server, credentials=options.credentials, timeout_s=options.timeout_s
    ) as client:
        if images is None:
            images = await _random_images(client, options)
        pool = serialized_requests(options, images)
        recorder = Recorder(options)
        caller = Caller(client.channel, pool, options.timeout_s, recorder)
        await _probe(caller)

        loop = _loop(options, caller, recorder)
        started_at = datetime.now(UTC)
        cpu_s = time.process_time()
        caller.restart_clock()
        loop.start()
        try:
            await _pass_the_time(caller, recorder, stop, watch)
            interrupted = stop.is_set() and caller.clock() < recorder.end_s
            recorder.stop(caller.clock())
            cpu_cores = (time.process_time() - cpu_s) / max(caller.clock(), 1e-9)
            loop.stop()
            await _drain(loop, stop, options.timeout_s)
        finally:
            # Again, for the case that the run itself was cancelled.
            recorder.stop(caller.clock())
            loop.stop()
            await _cut_off(loop)
        return recorder.result(
            options, started_at, interrupted=interrupted, client_cpu_cores=cpu_cores
        )


async def _random_images(client: Client, options: LoadOptions) -> NDArray[np.uint8]:
    size = (await client.model(options.model)).image_size
    if size == 0:
        raise InputError(f"the server does not tell the image size of {options.model}: give images")
    return random_images(images_needed(options.rows, 3 * size * size), size, options.seed)


def _loop(options: LoadOptions, caller: Caller, recorder: Recorder) -> ClosedLoop | OpenLoop:
    if options.concurrency is not None:
        return ClosedLoop(caller, recorder, options.concurrency)
    assert options.rate is not None  # LoadOptions takes exactly one of the two
    schedule = schedule_for(options.distribution, options.rate, options.seed)
    return OpenLoop(caller, recorder, schedule, options.max_in_flight)


async def _probe(caller: Caller) -> None:
    try:
        await caller.probe()
    except grpc.aio.AioRpcError as error:
        if error.code() in _HOPELESS:
            raise ServerError(error.code().name, error.details() or "") from error


async def _pass_the_time(
    caller: Caller,
    recorder: Recorder,
    stop: asyncio.Event,
    watch: Callable[[Snapshot], None] | None,
) -> None:
    while (left_s := recorder.end_s - caller.clock()) > 0 and not stop.is_set():
        step_s = min(left_s, WATCH_EVERY_S) if watch else left_s
        try:
            async with asyncio.timeout(step_s):
                await stop.wait()
        except TimeoutError:
            if watch:
                watch(recorder.snapshot(caller.clock()))


async def _drain(loop: ClosedLoop | OpenLoop, stop: asyncio.Event, timeout_s: float) -> None:
    """Wait for what is under way: each call ends by its own deadline, or soon after a stop."""
    # Departures that were announced before the stop are waiting in the event loop's queue.
    await asyncio.sleep(0)
    if not loop.tasks:
        return
    answered = asyncio.ensure_future(asyncio.wait(set(loop.tasks), timeout=timeout_s + 1))
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({answered, stopped}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({answered}, timeout=_INTERRUPTED_GRACE_S)
    finally:
        answered.cancel()
        stopped.cancel()


async def _cut_off(loop: ClosedLoop | OpenLoop) -> None:
    """Cancel what is still under way; an error of the client's own is not swallowed."""
    tasks = list(loop.tasks)
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome
