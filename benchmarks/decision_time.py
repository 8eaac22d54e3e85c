"""How long the scheduler takes to decide about a family: ``python -m benchmarks.decision_time``.

So many requests wait all the time: whenever a batch goes, as many are offered as it took, with deadlines
and floors that are drawn; workers take as long as batches do in the mean, give or take a tenth, and the
scheduler learns from each of them. Each ``offer`` and each ``poll`` is timed on its own, in the processor's
time of this thread, so that what others do on the machine is no part of it. That part which others take of
the processor's caches and units is: compare what was measured in turns.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import json
import platform
import random
import time
from collections.abc import Sequence
from pathlib import Path

from rootmodels.processor import cpu_name
from rootserve.server.core.family import Member
from rootserve.server.core.latency import LatencyTable
from rootserve.server.core.limits import Limits
from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Scheduler

_FAMILY, _KIND = "family", "processor"
_SIZES = (1, 2, 4, 8, 16, 32)


def served(variants: int, workers: int, explain: bool) -> Scheduler:
    """A scheduler with a family of ``variants``: the more accurate, the slower; up to four times."""
    table = LatencyTable()
    members = []
    for number in range(variants):
        share = number / max(1, variants - 1)
        name = f"variant-{number}"
        members.append(Member(name, 0.86 + 0.06 * share))
        for _ in range(16):
            for rows in _SIZES:
                table.learn(name, rows, 0.0006 + rows * 0.0004 * (1 + 3 * share), _KIND)
    scheduler = Scheduler(Limits(lead_s=None, explain=explain), table=table)
    for worker in range(workers):
        scheduler.worker_ready(f"worker-{worker}", [member.variant for member in members], _KIND)
    scheduler.family_served(_FAMILY, members)
    return scheduler


def measure(
    waiting: int,
    variants: int,
    workers: int,
    decisions: int,
    floors: Sequence[float],
    explain: bool,
) -> dict[str, list[float]]:
    """Microseconds that each offer that was taken, each that was refused, and each poll took."""
    rng = random.Random(1)
    scheduler = served(variants, workers, explain)
    took: dict[str, list[float]] = {"offer": [], "refusal": [], "poll": []}
    done: list[tuple[float, int, str, float]] = []
    now, number = 0.0, 0
    backlog_s = waiting * 0.0005 / workers
    gc.disable()
    while sum(map(len, took.values())) < decisions:
        for _ in range(2 * waiting):
            if scheduler.rows_queued(_FAMILY) >= waiting:
                break
            number += 1
            deadline_s = now + backlog_s * rng.uniform(1.0, 3.0) + 0.05
            request = Request(number, _FAMILY, 1, now, deadline_s, floor=rng.choice(floors))
            began = time.thread_time_ns()
            offered = scheduler.offer(request, now)
            ended = time.thread_time_ns()
            took["refusal" if offered.declined else "offer"].append((ended - began) * 1e-3)
        began = time.thread_time_ns()
        decided = scheduler.poll(now)
        ended = time.thread_time_ns()
        took["poll"].append((ended - began) * 1e-3)
        for batch in decided.dispatches:
            assert batch.cost is not None, "all requests are for a family"
            compute_s = batch.cost.mean_s * rng.lognormvariate(0.0, 0.1)
            heapq.heappush(done, (now + compute_s, batch.id, batch.worker, compute_s))
        now, batch_id, worker, compute_s = heapq.heappop(done)
        scheduler.batch_done(worker, batch_id, now, compute_s)
        if number % 1000 < waiting:
            gc.collect()
    gc.enable()
    return took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--waiting", type=int, default=256)
    parser.add_argument("--variants", type=int, default=14)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--explain", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{cpu_name()}, Python {platform.python_version()}, {options.waiting} waiting")
    results = {}
    for title, floors in (("no floors", (0.0,)), ("three floors", (0.0, 0.88, 0.90))):
        took = measure(
            options.waiting,
            options.variants,
            options.workers,
            options.decisions,
            floors,
            options.explain,
        )
        everything = [one for each in took.values() for one in each]
        for name, each in {**took, "all": everything}.items():
            if not each:
                continue
            ordered = sorted(each)
            p50, p99 = (ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.99))
            results[f"{title}: {name}"] = {"count": len(each), "p50_us": p50, "p99_us": p99}
            print(f"{title:13} {name:8} {len(each):7} p50 {p50:6.1f} us   p99 {p99:6.1f} us")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
