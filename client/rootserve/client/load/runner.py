"""Runs a load from its first request to its result."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import grpc
from numpy.typing import NDArray

from rootserve.client.errors import InputError, ServerError
from rootserve.client.inference import AsyncClient
from rootserve.client.load.agent import Agent, LocalAgent, Outcome, Task
from rootserve.client.load.histogram import LatencyHistogram
from rootserve.client.load.options import LoadOptions
from rootserve.client.load.processes import AgentLost, RemoteAgent
from rootserve.client.load.recording import Progress, Recorder
from rootserve.client.load.report import LoadResult, Trial
from rootserve.client.load.requests import (
    Images,
    Kind,
    Plan,
    RequestPool,
    images_needed,
    plan_for,
    random_images,
)
from rootserve.client.load.result import RunFacts, result_of
from rootserve.client.load.snapshot import Snapshot, snapshot_of
from rootserve.client.load.stability import is_stable
from rootserve.client.load.transport import CallFailed, StreamTransport, UnaryTransport
from rootserve.client.stopping import unless_stopped

WATCH_EVERY_S = 0.5
# An interrupted run waits this long for what is under way before it cuts it off.
_INTERRUPTED_GRACE_S = 1.0
# Several processes get this long to take note of the common start.
_HEAD_START_S = 0.1
# So often it is seen whether someone has stopped the run while it waits for answers.
_DRAIN_STEP_S = 0.2
# Codes with which a server would refuse every further request as well.
_HOPELESS = frozenset(
    code.name
    for code in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    )
)

# A replay may ask for more different things than are worth a request each.
_MOST_PROBES = 32

T = TypeVar("T")
Watch = Callable[[Snapshot], None]


async def run_load(
    options: LoadOptions,
    images: NDArray[Any] | None = None,
    *,
    stop: asyncio.Event | None = None,
    watch: Watch | None = None,
) -> LoadResult:
    """Put a model under load and measure it.

    The run is bounded by warm-up + duration + timeout, the duration taken `max_trials` times if
    stability is asked for. A failed request is counted by its code and never ends the run; only a
    first request, sent before the warm-up and counted nowhere, may show that none could succeed.

    Args:
        options: What to do.
        images: uint8 [N, 3, H, W], repeated as needed; random ones of the models' size when None.
        stop: Set it to end the run early; the result covers what was measured until then.
        watch: Called every half second while requests are sent. Its time is taken from them.

    Raises:
        Unreachable: No server answers at an address.
        ServerError: A server knows no such model, or refuses such requests altogether.
        InputError: The images have another shape or a request would be too large.
    """
    stop = stop or asyncio.Event()
    prepared = await unless_stopped(stop, _prepare(options, images))
    if prepared is None:
        return _nothing(options)
    plan, pictures = prepared
    kind = LocalAgent if options.processes == 1 else RemoteAgent
    run = _Run(options, stop, watch)
    try:
        for part in range(options.processes):
            run.add(kind(Task(options, plan, pictures, part, options.processes)))
        if await unless_stopped(stop, run.open()) is None:
            return _nothing(options)
        return await run.measure(plan)
    finally:
        await run.close()


async def _prepare(options: LoadOptions, images: Images | None) -> tuple[Plan, dict[str, Images]]:
    """Look at the servers, take or make the images, and see that a request can succeed."""
    plan = plan_for(options)
    pictures: dict[str, Images] = {}
    for server in options.servers:
        async with AsyncClient(
            server, credentials=options.credentials, timeout_s=options.timeout_s
        ) as client:
            if not pictures:
                plan = replace(plan, accuracies=await _accuracies(client, options))
                for model in options.models:
                    pictures[model] = (
                        await _random_images(client, options, plan, model)
                        if images is None
                        else images
                    )
            await _probe(client, options, plan, pictures)
    return plan, pictures


async def _accuracies(client: AsyncClient, options: LoadOptions) -> dict[str, float]:
    """Those of the models, as far as the server tells them."""
    try:
        models = await client.models()
    except ServerError:
        # It has no catalogue, or does not tell it; then its answers may tell their own.
        return {}
    return {
        model.name: model.accuracy
        for model in models
        if model.accuracy is not None and model.name in options.models
    }


async def _random_images(
    client: AsyncClient, options: LoadOptions, plan: Plan, model: str
) -> Images:
    size = (await client.model(model)).image_size
    if size == 0:
        raise InputError(f"the server does not tell the image size of {model}: give images")
    return random_images(images_needed(plan, model, 3 * size * size), size, options.seed)


async def _probe(
    client: AsyncClient, options: LoadOptions, plan: Plan, pictures: dict[str, Images]
) -> None:
    """Send requests that count nowhere: one for each model, and for each choice of a family's variants."""
    transport = (StreamTransport if options.streaming else UnaryTransport)(client.channel)
    wanted: dict[tuple[object, ...], Kind] = {}
    for kind in plan.kinds:
        wanted.setdefault((kind.model, kind.accuracy_floor, kind.variants), kind)
    for kind in list(wanted.values())[:_MOST_PROBES]:
        body, _ = RequestPool(Plan((kind,), (0,)), pictures).body(0)
        try:
            await transport.call(body, options.timeout_s)
        except CallFailed as failure:
            if failure.code in _HOPELESS:
                raise ServerError(failure.code, failure.details) from failure


def _nothing(options: LoadOptions) -> LoadResult:
    """The result of a run that was interrupted before it began."""
    recording = Recorder(options, plan_for(options)).recording()
    facts = RunFacts(
        started_at=datetime.now(UTC), end_s=0.0, interrupted=True, client_cpu_cores=0.0
    )
    return result_of(options, recording, facts)


@dataclass(frozen=True, slots=True)
class _End:
    """How sending ended: when, whether before its time, and whether it had become stable."""

    end_s: float
    interrupted: bool
    stable: bool | None


class _Run:
    """Leads the agents of a run through it."""

    def __init__(
        self,
        options: LoadOptions,
        stop: asyncio.Event,
        watch: Watch | None,
    ) -> None:
        self._options = options
        self._all: list[Agent] = []
        self._agents: list[Agent] = []
        self._stop = stop
        self._watch = watch
        self._origin_s = 0.0

    def add(self, agent: Agent) -> None:
        """Let an agent take part; from now on it is freed with the others."""
        self._all.append(agent)
        self._agents.append(agent)

    async def open(self) -> bool:
        """Connect all agents."""
        await asyncio.gather(*(agent.open() for agent in self._agents))
        return True

    async def close(self) -> None:
        """Free all agents."""
        await asyncio.gather(*(agent.close() for agent in self._all))

    async def measure(self, plan: Plan) -> LoadResult:
        """Send, wait for the answers, put the result together."""
        started_at = datetime.now(UTC)
        head_start_s = _HEAD_START_S if len(self._agents) > 1 else 0.0
        self._origin_s = time.perf_counter() + head_start_s
        await self._each(lambda agent: agent.start(self._origin_s))
        end = await self._send()
        await self._each(lambda agent: agent.stop(end.end_s))
        await self._drain()
        outcomes: list[Outcome] = await self._each(lambda agent: agent.finish())
        recording = Recorder(self._options, plan).recording()
        for outcome in outcomes:
            recording.merge(outcome.recording)
        facts = RunFacts(
            started_at=started_at,
            end_s=end.end_s,
            interrupted=end.interrupted,
            stable=end.stable,
            client_cpu_cores=sum(outcome.cpu_cores for outcome in outcomes),
            lost_processes=len(self._all) - len(self._agents),
        )
        return result_of(self._options, recording, facts)

    def _clock(self) -> float:
        return time.perf_counter() - self._origin_s

    async def _each(self, ask: Callable[[Agent], Awaitable[T]]) -> list[T]:
        """Ask all agents; one whose process has ended is asked no more."""
        answers = await asyncio.gather(*map(ask, self._agents), return_exceptions=True)
        pairs = list(zip(self._agents, answers, strict=True))
        self._agents = [agent for agent, answer in pairs if not isinstance(answer, AgentLost)]
        good: list[T] = []
        for answer in answers:
            if isinstance(answer, AgentLost):
                continue
            if isinstance(answer, BaseException):
                raise answer
            good.append(answer)
        return good

    async def _send(self) -> _End:
        """Let the agents send until the windows are over, or throughput and p99 are stable."""
        options = self._options
        if options.stable_within is None:
            in_time = await self._pass_until(options.longest_s)
            return _End(options.longest_s if in_time else self._clock(), not in_time, None)
        trials: list[Trial] = []
        end_s = options.warmup_s
        while len(trials) < options.max_trials:
            start_s, end_s = end_s, end_s + options.duration_s
            if not await self._pass_until(end_s):
                return _End(self._clock(), interrupted=True, stable=False)
            trials.append(await self._trial(len(trials), start_s, end_s))
            if is_stable(trials, options.stable_within):
                return _End(end_s, interrupted=False, stable=True)
        return _End(end_s, interrupted=False, stable=False)

    async def _trial(self, number: int, start_s: float, end_s: float) -> Trial:
        """Figures of a window that has just ended."""
        answered = LatencyHistogram()
        for histogram in await self._each(lambda agent: agent.answered_in(number)):
            answered.merge(histogram)
        return Trial(start_s, end_s, answered.count / (end_s - start_s), answered.quantile(0.99))

    async def _pass_until(self, end_s: float) -> bool:
        """Let time pass, telling the watcher; False if the stop came first."""
        while (left_s := end_s - self._clock()) > 0 and not self._stop.is_set():
            step_s = min(left_s, WATCH_EVERY_S) if self._watch else left_s
            try:
                async with asyncio.timeout(step_s):
                    await self._stop.wait()
            except TimeoutError:
                if self._watch:
                    self._watch(await self._snapshot())
        return self._clock() >= end_s or not self._stop.is_set()

    async def _snapshot(self) -> Snapshot:
        first, *others = await self._each(lambda agent: agent.progress()) or [Progress.nothing()]
        for other in others:
            first.merge(other)
        return snapshot_of(first, self._options, self._clock())

    async def _drain(self) -> None:
        """Wait for what is under way: each call ends by its own deadline, or soon after a stop."""
        give_up_s = self._clock() + self._options.timeout_s + 1
        while (left_s := give_up_s - self._clock()) > 0:
            if self._stop.is_set():
                give_up_s = min(give_up_s, self._clock() + _INTERRUPTED_GRACE_S)
                left_s = min(left_s, _INTERRUPTED_GRACE_S)
            wait_s = min(left_s, _DRAIN_STEP_S)
            if all(await self._each(lambda agent, wait_s=wait_s: agent.drain(wait_s))):  # type: ignore[misc]
                return
