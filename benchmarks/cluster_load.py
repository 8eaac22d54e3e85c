"""Callers of a cluster and what became of each request: an open loop, timed from when a request was due."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import grpc
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc import service_pb2_grpc

from tests.support.server_process import command_image, infer_request

_TIMEOUT_S = 20.0

Stub = service_pb2_grpc.GRPCInferenceServiceStub


@dataclass(frozen=True, slots=True)
class Ended:
    """One request: when it was due and ended, in seconds from the start of the run, and its status."""

    due_s: float
    ended_s: float
    code: str
    tries: int
    """How many servers the proxy asked; 0 if it did not tell."""


@dataclass
class Run:
    """All requests of a run."""

    ended: list[Ended] = field(default_factory=list)

    def note(self, due_s: float, ended_s: float, code: str, metadata: object) -> None:
        """One request has ended; ``metadata`` is what came ahead of the answer."""
        tries = int(dict(metadata or ()).get("x-envoy-attempt-count", 0))  # type: ignore[call-overload]
        self.ended.append(Ended(due_s, ended_s, code, tries))

    @property
    def failed(self) -> dict[str, int]:
        """Requests without an answer, by status."""
        return dict(Counter(one.code for one in self.ended if one.code != "OK"))

    def quantile_ms(self, share: float, code: str = "OK") -> float | None:
        """Milliseconds from when they were due within which this share of those with ``code`` ended."""
        times = sorted(one.ended_s - one.due_s for one in self.ended if one.code == code)
        return times[math.ceil(share * len(times)) - 1] * 1e3 if times else None

    def longest_gap_s(self) -> float:
        """The longest time between two answers."""
        times = sorted(one.ended_s for one in self.ended if one.code == "OK")
        return max((b - a for a, b in itertools.pairwise(times)), default=math.inf)

    def summary(self) -> dict[str, object]:
        """What a report says of it."""
        return {
            "sent": len(self.ended),
            "failed": self.failed,
            "tried_again": sum(one.tries > 1 for one in self.ended),
            "p50_ms": self.quantile_ms(0.5),
            "p99_ms": self.quantile_ms(0.99),
            "max_ms": self.quantile_ms(1.0),
            "longest_gap_s": self.longest_gap_s(),
        }


def service_request(model: str, service_ms: int) -> oip.ModelInferRequest:
    """A request that the fake engine takes ``service_ms``, a multiple of ten, to answer."""
    assert service_ms % 10 == 0, f"{service_ms} ms is no multiple of 10"
    return infer_request(model, command_image(b"sleep" + bytes([service_ms // 10])))


async def drive(
    address: str,
    request: oip.ModelInferRequest,
    rate: float,
    seconds: float,
    stop: asyncio.Event | None = None,
) -> Run:
    """``rate`` requests per second, Poisson, for ``seconds`` or until ``stop``; ends with the last."""
    rng = random.Random(0)
    run = Run()
    async with grpc.aio.insecure_channel(address) as channel:
        stub = Stub(channel)
        began = time.perf_counter()

        async def one(due_s: float) -> None:
            call = stub.ModelInfer(request, timeout=_TIMEOUT_S)
            code = (await call.code()).name
            ended_s = time.perf_counter() - began
            run.note(due_s, ended_s, code, await call.initial_metadata())

        calls = set()
        due = 0.0
        while (due := due + rng.expovariate(rate)) < seconds and not (stop and stop.is_set()):
            await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
            task = asyncio.ensure_future(one(due))
            calls.add(task)
            task.add_done_callback(calls.discard)
        await asyncio.gather(*calls)
    return run
