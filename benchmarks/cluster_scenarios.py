"""What may happen to servers behind Envoy while callers go on; each scenario gives its figures."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
from tritonclient.grpc import service_pb2 as oip

from benchmarks.cluster_load import Run, Stub, drive, service_request
from tests.support.envoy import Envoy
from tests.support.nodes import Node
from tests.support.server_process import infer_request, plain_images, wait_until

MODEL = "nin-root-16"
FAKE = ("--engine", "fake", "--device", "cpu", "--models", MODEL)
SERVICE_MS = 20
CAPACITY_PER_S = 1000 / SERVICE_MS
"""Of one server, which answers one image after the other."""

_LONGEST_S = 300.0

Figures = dict[str, object]


@dataclass(frozen=True)
class Cluster:
    """Servers and the proxy before them; ``request`` is what callers send, ``rate`` how often in a second."""

    nodes: list[Node]
    envoy: Envoy
    request: oip.ModelInferRequest
    rate: float

    def load(
        self, seconds: float, share: float = 1.0, stop: asyncio.Event | None = None
    ) -> asyncio.Task[Run]:
        """Callers for ``seconds``, or until ``stop``."""
        rate = self.rate * share
        return asyncio.ensure_future(drive(self.envoy.address, self.request, rate, seconds, stop))

    def ejected(self) -> float:
        """How often Envoy has taken a server away because of what came of its calls."""
        return self.envoy.figure("envoy_cluster_outlier_detection_ejections_enforced_total")

    def asked(self) -> dict[str, float]:
        """How many calls each server has got."""
        return {
            node.address: self.envoy.figure("envoy_cluster_endpoint_rq_total", node.address)
            for node in self.nodes
        }


def cluster_of_fakes(nodes: list[Node], envoy: Envoy, load: float = 0.6) -> Cluster:
    """Callers that want ``load`` of what all ``nodes`` together can."""
    rate = load * CAPACITY_PER_S * len(nodes)
    return Cluster(nodes, envoy, service_request(MODEL, SERVICE_MS), rate)


async def kills(cluster: Cluster, seconds: float, every_s: float) -> Figures:
    """A server is killed (-9) with its workers every few seconds, and started again at once.

    The next one waits until the last one serves again: no proxy helps where no server is left.
    """
    driving = cluster.load(seconds)
    end_s = time.monotonic() + seconds - every_s / 2
    killed = 0
    for node in itertools.cycle(cluster.nodes):
        await asyncio.sleep(every_s)
        await asyncio.to_thread(_wait_whole, cluster)
        if time.monotonic() > end_s:
            break
        await asyncio.to_thread(node.kill)
        node.start()
        killed += 1
    return {"kills": killed, **(await driving).summary()}


def _wait_whole(cluster: Cluster) -> None:
    """Until all servers serve and the proxy knows."""
    for node in cluster.nodes:
        node.wait_serving()
    wait_until(lambda: cluster.envoy.healthy() == len(cluster.nodes))


async def one_of_two_dies(cluster: Cluster, calls: int) -> Figures:
    """So many calls are under way at two servers when one of them is killed."""
    address = cluster.envoy.address
    run = Run()

    async def one(stub: Stub) -> None:
        began = time.perf_counter()
        call = stub.ModelInfer(cluster.request, timeout=60)
        code = (await call.code()).name
        run.note(0.0, time.perf_counter() - began, code, await call.initial_metadata())

    async with grpc.aio.insecure_channel(address) as channel:
        under_way = asyncio.gather(*(one(Stub(channel)) for _ in range(calls)))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(cluster.nodes[0].kill)
        await under_way
    return {"under_way": calls - sum(one.ended_s < 0.5 for one in run.ended), **run.summary()}


async def rolling_restart(cluster: Cluster, pause_s: float) -> Figures:
    """SIGTERM to each server in turn; the next when it serves again."""
    stop = asyncio.Event()
    driving = cluster.load(_LONGEST_S, stop=stop)
    statuses = []
    for node in cluster.nodes:
        await asyncio.sleep(pause_s)
        statuses.append(await asyncio.to_thread(node.terminate))
        node.start()
        await asyncio.to_thread(node.wait_serving)
    await asyncio.sleep(pause_s)
    stop.set()
    return {"exit_statuses": statuses, **(await driving).summary()}


async def one_stops(cluster: Cluster, stopped_s: float, seconds: float) -> Figures:
    """SIGSTOP of a server and its workers: it keeps its connections and answers nothing."""
    driving = cluster.load(seconds)
    await asyncio.sleep(2.0)
    node = cluster.nodes[0]
    node.signal(signal.SIGSTOP)
    try:
        before = cluster.asked()[node.address]
        await asyncio.sleep(stopped_s)
        meanwhile = cluster.asked()[node.address] - before
    finally:
        node.signal(signal.SIGCONT)
    return {"sent_to_it_meanwhile": meanwhile, **(await driving).summary()}


async def one_joins(cluster: Cluster, patience_s: float) -> Figures:
    """The last server starts while callers go on; when has it 80 % of its share of a second's calls?"""
    stop = asyncio.Event()
    driving = cluster.load(patience_s + 2.0, stop=stop)
    await asyncio.sleep(1.0)
    node = cluster.nodes[-1]
    began = time.monotonic()
    node.start()
    serving_s = has_share_s = None
    asked = cluster.asked()
    while has_share_s is None and time.monotonic() - began < patience_s:
        await asyncio.sleep(1.0)
        now = cluster.asked()
        new = {address: now[address] - asked[address] for address in now}
        asked = now
        if serving_s is None and await asyncio.to_thread(node.is_serving):
            serving_s = time.monotonic() - began
        if new[node.address] * len(new) >= 0.8 * sum(new.values()) > 0:
            has_share_s = time.monotonic() - began
    stop.set()
    summary = (await driving).summary()
    return {"serving_after_s": serving_s, "has_its_share_after_s": has_share_s, **summary}


async def overload(cluster: Cluster, seconds: float, times: float) -> Figures:
    """Some times what the servers can, with short queues: who is refused, and is a server taken away?"""
    run = await cluster.load(seconds, times)
    answered = sum(one.code == "OK" for one in run.ended)
    took_s = max(one.ended_s for one in run.ended)
    able = CAPACITY_PER_S * len(cluster.nodes) * took_s
    return {
        "offered_of_capacity": len(run.ended) / able,
        "answered_of_capacity": answered / able,
        "ejected": cluster.ejected(),
        "healthy": cluster.envoy.healthy(),
        **run.summary(),
    }


async def stream_in_a_drain(cluster: Cluster, before: int) -> Figures:
    """A stream whose server shuts down: it gets its answers and an end, and the next one goes elsewhere."""
    address = cluster.envoy.address
    got: list[str] = []
    asked = cluster.asked()
    async with grpc.aio.insecure_channel(address) as channel:
        stub = Stub(channel)
        more = asyncio.Event()

        async def requests() -> AsyncIterator[oip.ModelInferRequest]:
            for number in range(before):
                yield infer_request(MODEL, plain_images(1, number), f"early-{number}")
            await more.wait()
            yield infer_request(MODEL, plain_images(1), "late")
            await asyncio.Event().wait()

        call = stub.ModelStreamInfer(requests(), timeout=60)

        async def read() -> None:
            async for response in call:
                refusal = response.error_message.partition("]")[0].lstrip("[")
                got.append(refusal or "OK")

        reading = asyncio.ensure_future(read())
        await asyncio.to_thread(wait_until, lambda: len(got) == before)
        now = cluster.asked()
        (node,) = [one for one in cluster.nodes if now[one.address] > asked[one.address]]
        ending = asyncio.ensure_future(asyncio.to_thread(node.terminate))
        await asyncio.sleep(0.5)
        more.set()  # in its grace the server still answers
        try:
            await reading
            status = "OK"
        except grpc.aio.AioRpcError as error:
            status = error.code().name
        exit_status = await ending
        again = stub.ModelStreamInfer(iter([infer_request(MODEL, plain_images(1))]), timeout=60)
        answers = [response.error_message or "OK" async for response in again]
    return {
        "answers": dict(Counter(got)),
        "ended_with": status,
        "exit_status": exit_status,
        "next_stream": answers,
    }


def pids_left(nodes: list[Node]) -> list[int]:
    """Process groups of ``nodes`` in which anything still runs."""
    left = []
    for node in nodes:
        if node.process is not None:
            try:
                os.killpg(node.process.pid, 0)
            except ProcessLookupError:
                continue
            left.append(node.process.pid)
    return left
