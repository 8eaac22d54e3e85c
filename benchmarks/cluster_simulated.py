"""Clusters on paper: nodes that are the scheduler's own module, behind three ways to choose a node.

`python -m benchmarks.cluster_simulated` takes some minutes. A batch of b images takes 2 + 8 b ms on a node, a
request is one image with a deadline of 250 ms, and in some runs one node is ten times slower from a third of
the time on. What is left out: the network, the proxy's own time, and everything that fails.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Batch, Limits, Scheduler

DEADLINE_S = 0.25
DRAWN = 3
SLOWER = 10.0
MOST_ROWS = 32
_WORKER, _MODEL = "w", "m"


def batch_s(rows: int) -> float:
    """How long a node computes a batch."""
    return 0.002 + 0.008 * rows


CAPACITY_PER_S = MOST_ROWS / batch_s(MOST_ROWS)
"""Of one node, in full batches."""


@dataclass(eq=False)
class Node:
    """A scheduler with one worker; ``under_way`` is what a proxy counts."""

    scheduler: Scheduler = field(default_factory=lambda: Scheduler(Limits(MOST_ROWS)))
    under_way: int = 0
    free_s: float = 0.0
    slower: float = 1.0

    def __post_init__(self) -> None:
        self.scheduler.worker_ready(_WORKER, [_MODEL])

    def backlog_s(self) -> float:
        """Predicted seconds of all that it has, which it would report."""
        return self.under_way * (self.scheduler.durations.predict(_MODEL, 8) or batch_s(8)) / 8


Choose = Callable[[Sequence[Node], random.Random, int], Node]


def round_robin(nodes: Sequence[Node], _: random.Random, number: int) -> Node:
    """One after the other."""
    return nodes[number % len(nodes)]


def least_request(nodes: Sequence[Node], rng: random.Random, _: int) -> Node:
    """The fewest under way of three that are drawn."""
    return min(rng.choices(nodes, k=DRAWN), key=lambda node: node.under_way)


def least_backlog(nodes: Sequence[Node], rng: random.Random, _: int) -> Node:
    """The least predicted work of three that are drawn."""
    return min(rng.choices(nodes, k=DRAWN), key=Node.backlog_s)


POLICIES: dict[str, Choose] = {
    "round robin": round_robin,
    "least request": least_request,
    "least backlog": least_backlog,
}


class Simulation:
    """``requests`` come at ``load`` of the capacity of ``nodes`` and are counted by what became of them."""

    def __init__(self, nodes: int, choose: Choose, load: float, requests: int, seed: int) -> None:
        self._nodes = [Node() for _ in range(nodes)]
        self._choose = choose
        self._rate = load * CAPACITY_PER_S * nodes
        self._requests = requests
        self._rng = random.Random(seed)
        self._events: list[tuple[float, int, Node, Batch | None]] = []
        self._order = itertools.count()
        self.times_s: list[float] = []
        self.lost = 0

    def run(self, slow_node: bool) -> None:
        """Until all requests have ended."""
        now, slow_from = 0.0, self._requests // 3
        for number in range(self._requests):
            now += self._rng.expovariate(self._rate)
            self._until(now)
            if slow_node and number == slow_from:
                self._nodes[0].slower = SLOWER
            node = self._choose(self._nodes, self._rng, number)
            request = Request(number, _MODEL, 1, now, now + DEADLINE_S, 1)
            if node.scheduler.offer(request, now).declined is not None:
                self.lost += 1
                continue
            node.under_way += 1
            self._poll(node, now)
        self._until(math.inf)

    def _until(self, end_s: float) -> None:
        while self._events and self._events[0][0] <= end_s:
            now, _, node, batch = heapq.heappop(self._events)
            if batch is not None:
                took_s = batch_s(batch.rows) * node.slower
                node.scheduler.batch_done(_WORKER, batch.id, now, took_s)
                node.under_way -= len(batch.requests)
                for request in batch.requests:
                    if now <= request.deadline_s:
                        self.times_s.append(now - request.arrived_s)
                    else:
                        self.lost += 1
            self._poll(node, now)

    def _poll(self, node: Node, now: float) -> None:
        decisions = node.scheduler.poll(now)
        self.lost += len(decisions.expired)
        node.under_way -= len(decisions.expired)
        for batch in decisions.dispatches:
            node.free_s = max(now, node.free_s) + batch_s(batch.rows) * node.slower
            heapq.heappush(self._events, (node.free_s, next(self._order), node, batch))
        if now < decisions.wake_s < now + 1.0:
            heapq.heappush(self._events, (decisions.wake_s, next(self._order), node, None))

    def figures(self) -> dict[str, float]:
        """The share that was answered in time, and within which time 99 % of those were."""
        times = sorted(self.times_s)
        return {
            "attainment": len(times) / (len(times) + self.lost),
            "p99_ms": 1e3 * times[math.ceil(0.99 * len(times)) - 1],
        }


def main() -> None:
    """Print a row for each cluster, load and policy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[10, 1000])
    parser.add_argument("--loads", type=float, nargs="+", default=[0.7, 0.8, 0.9, 1.0])
    parser.add_argument("--requests", type=int, default=60_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    print(f"{'nodes':>6} {'slow':>5} {'load':>5}  {'policy':14} {'in time':>8} {'p99':>8}")
    for nodes, slow, load in itertools.product(args.nodes, (False, True), args.loads):
        for name, choose in POLICIES.items():
            simulation = Simulation(nodes, choose, load, args.requests, seed=1)
            simulation.run(slow)
            row = {"nodes": nodes, "slow_node": slow, "load": load, "policy": name}
            rows.append({**row, **simulation.figures()})
            attainment, p99_ms = rows[-1]["attainment"], rows[-1]["p99_ms"]
            mark = "yes" if slow else ""
            print(
                f"{nodes:6} {mark:>5} {load:5.2f}  {name:14} {attainment:8.2%} {p99_ms:5.0f} ms",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
