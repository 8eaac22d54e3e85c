"""How good the choice of variants is: ``python -m benchmarks.serving_policies``.

Simulates the service's scheduler and the policies of others on the workloads of
``benchmarks/policy_workloads.py``: for each seed the same trace for all, on a measured latency table
(``benchmarks/latency_table.py``). Beside them stands an upper bound that no policy can pass
(``benchmarks/policy_bound.py``). Writes JSON and Markdown tables; ``--quick``: two seeds of a few workloads.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.engine_tables import write_section
from benchmarks.policy_bound import bound
from benchmarks.policy_tables import markdown
from benchmarks.policy_workloads import Workload, workloads
from rootserve.client.simulation.rivals import rivals
from rootserve.client.simulation.service import Service
from rootserve.client.simulation.table_file import read_table
from rootserve.server.core.policy import Policy

TABLE = Path(__file__).parent / "tables/nin-quiet.json"
OURS = "rootserve"
QUICK = ("Poisson, load 0.6", "Poisson, load 0.9", "Poisson, load 1.2", "step, 0.3, 1.2, 0.3")


def base_service(path: Path) -> Service:
    """One worker, as it was measured."""
    table = read_table(path)
    kind = table.latencies.kinds[0]
    return Service(members=table.members, latencies=table.latencies, workers={kind: 1})


def contenders(service: Service, every_variant: bool) -> dict[str, Callable[[], Policy] | None]:
    """The policies by name; of single variants those that none beats in accuracy and time, or every one."""
    names = [member.variant for member in service.members]
    if not every_variant:
        names = [name for name in names if not _is_beaten(service, name)]
    return {OURS: None, **rivals(names)}


def _is_beaten(service: Service, name: str) -> bool:
    accuracy = {member.variant: member.accuracy for member in service.members}
    rate = {variant: service.capacity(variant) for variant in accuracy}
    return any(accuracy[other] >= accuracy[name] and rate[other] > rate[name] for other in accuracy)


def one_trace(
    path: Path, seconds: float, every_variant: bool, place: int, seed: int
) -> dict[str, Any]:
    """All policies on one trace of a workload, and the bound of it."""
    workload = workloads()[place]
    service = workload.service(base_service(path))
    arrivals = workload.arrivals(service.capacity(), seconds, seed)
    faults = workload.faults(seconds, service)
    most = bound(service, arrivals, faults)
    found: dict[str, Any] = {}
    for name, policy in contenders(service, every_variant).items():
        # Those of others know no admission: what cannot be in time is dropped where it waits.
        variant = service if name == OURS else service.alternative(policy, admission=False)
        run = variant.run(arrivals, seed=seed, faults=faults, timed=name == OURS)
        found[name] = asdict(variant.summary(run))
    return {"workload": workload.name, "seed": seed, "bound": most._asdict(), "policies": found}


def measure(
    chosen: Sequence[int], work: Callable[[int, int], dict[str, Any]], seeds: int, until_s: float
) -> Iterator[dict[str, Any]]:
    """All workloads, seed after seed, so that whatever ends early has about the same seeds of all."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, _be_nice) as pool:
        for seed in range(1, seeds + 1):
            for trace in pool.map(work, chosen, [seed] * len(chosen)):
                print(f"seed {seed}: {trace['workload']}", file=sys.stderr, flush=True)
                yield trace
            if time.monotonic() > until_s:
                print(f"time is up after {seed} seeds", file=sys.stderr)
                return


def _be_nice() -> None:
    os.nice(5)


def picked(names: Sequence[str] | None, every: Sequence[Workload]) -> list[int]:
    """Places of the workloads with one of these words in their names."""
    return [
        place
        for place, workload in enumerate(every)
        if names is None or any(name in workload.name for name in names)
    ]


def main() -> int:
    """Simulate, and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--latency", type=Path, default=TABLE, metavar="FILE")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each trace")
    parser.add_argument(
        "--minutes", type=float, default=60, help="begin no further seed after so long"
    )
    parser.add_argument("--workloads", action="append", metavar="WORD", help="those with it alone")
    parser.add_argument(
        "--every-variant", action="store_true", help="single variants that are beaten, too"
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--page", type=Path, help="page whose section is written anew")
    parser.add_argument("--read", type=Path, help="tables of the JSON of an earlier run instead")
    args = parser.parse_args()
    names = QUICK if args.quick else args.workloads
    chosen = picked(names, workloads())
    if not chosen:
        parser.error(f"--workloads: none is called like {names}")
    until_s = time.monotonic() + 60 * args.minutes
    seeds = min(args.seeds, 2) if args.quick else args.seeds
    work = partial(one_trace, args.latency, args.seconds, args.every_variant)
    found: list[dict[str, Any]] = []
    told = {
        "schema": "rootserve.policies/1",
        "table": args.latency.name,
        "seconds": args.seconds,
        "capacity_rows_per_s": base_service(args.latency).capacity(),
        "traces": found,
    }
    if args.read:
        found += json.loads(args.read.read_text())["traces"]
    for trace in () if args.read else measure(chosen, work, seeds, until_s):
        found.append(trace)
        if args.json:  # kept as it comes: this takes long
            args.json.write_text(json.dumps(told) + "\n")
    text = markdown(found, OURS)
    if args.markdown:
        args.markdown.write_text(text)
    if args.page:
        write_section(args.page, "policies", text.strip())
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
