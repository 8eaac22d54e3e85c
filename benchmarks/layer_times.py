"""Where the time of an image goes, layer by layer: ``python -m benchmarks.layer_times``.

One thread, one image, OpenVINO's own clock of each node; the networks take turns. Beside each time, how many
multiply-accumulates per second that is: what keeps a network's speed-up below its FLOPs ratio is a layer that
does fewer of them than the layer it replaces.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov

from benchmarks.engine_tables import table, write_section
from benchmarks.rounds import machine
from rootmodels.cost import network_cost
from rootmodels.variants import get_variant
from rootmodels.weights_info import weights_path
from server.engines.base import LoadSpec, Precision
from server.engines.openvino_cpu import compile_options, network_graph


def node_times(specs: Sequence[LoadSpec], rounds: int) -> list[dict[str, float]]:
    """Median microseconds of each node that took any, for each of ``specs``."""
    core = ov.Core()
    requests = []
    for spec in specs:
        options = compile_options(core, spec) | {"NUM_STREAMS": 1, "PERF_COUNT": True}
        compiled = core.compile_model(network_graph(spec), "CPU", options)
        requests.append((compiled.create_infer_request(), compiled.input(0).shape))
    found: list[dict[str, list[float]]] = [defaultdict(list) for _ in specs]
    for _ in range(rounds):
        for (request, shape), times in zip(requests, found, strict=True):
            request.infer([np.zeros(shape, np.float32)])
            for node in request.profiling_info:
                if node.real_time:
                    times[node.node_name].append(node.real_time.total_seconds() * 1e6)
    return [{name: statistics.median(values) for name, values in times.items()} for times in found]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--variants", default="nin-orig,nin-root-16")
    add("--precision", default="bf16", choices=["fp32", "bf16", "int8"])
    add("--rounds", type=int, default=300)
    add("--markdown", type=Path, help="page whose section is written anew")
    args = parser.parse_args(arguments)
    names: list[str] = args.variants.split(",")
    precision: Precision = args.precision
    specs = [LoadSpec(name, weights_path(name), "cpu", 1, precision) for name in names]
    times = node_times(specs, args.rounds)
    costs = [
        {cost.layer.name: cost.macs for cost in network_cost(get_variant(name)).layers}
        for name in names
    ]
    lines = []
    for layer in costs[0]:
        cells = [layer]
        for cost, found in zip(costs, times, strict=True):
            took = found.get(layer, 0.0)
            rate = f"{cost[layer] / took / 1e3:,.0f}" if cost[layer] and took else "-"
            cells += [f"{cost[layer] / 1e6:,.1f}", f"{took:,.0f}", rate]
        lines.append(cells)
    total = ["all nodes"]
    for cost, found in zip(costs, times, strict=True):
        took, macs = sum(found.values()), sum(cost.values())
        total += [f"{macs / 1e6:,.1f}", f"{took:,.0f}", f"{macs / took / 1e3:,.0f}"]
    head = ["layer"]
    for name in names:
        head += [f"{name}: million MACs", "us", "GMAC/s"]
    text = f"{machine('cpu', 1)}, {precision}.\n\n{table(head, [*lines, total])}"
    print(text)
    if args.markdown:
        write_section(args.markdown, "layers", text)


if __name__ == "__main__":
    main()
