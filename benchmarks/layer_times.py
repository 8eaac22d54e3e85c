"""Where the time of an image goes, layer by layer: ``python -m benchmarks.layer_times``.

One thread, one image, OpenVINO's own clock of each node; the networks take turns. Beside each time, how many
multiply-accumulates per second that is: what keeps a network's speed-up below its FLOPs ratio is a layer that
does fewer of them than the layer it replaces.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.engine_tables import table, write_section
from benchmarks.rounds import machine
from rootmodels.cost import network_cost
from rootmodels.variants import get_variant
from rootmodels.weights_info import weights_path
from rootserve.server.engines import openvino_profile
from rootserve.server.engines.base import LoadSpec, Precision
from rootserve.server.engines.profiling import PassTimes


def layer_times(specs: Sequence[LoadSpec], rounds: int) -> list[dict[str, float]]:
    """Median microseconds of each layer, and of all else as "other", for each of ``specs``."""
    profilers = [openvino_profile.load(spec) for spec in specs]
    images = [np.zeros((1, 3, spec.image_size(), spec.image_size()), np.uint8) for spec in specs]
    passes: list[list[PassTimes]] = [[] for _ in specs]
    for _ in range(rounds):
        for profiler, image, found in zip(profilers, images, passes, strict=True):
            found.append(profiler.run(image))
    return [
        {
            name: statistics.median(one.layers[name] for one in found) / 1e3
            for name in found[0].layers
        }
        | {"other": statistics.median(one.other_ns for one in found) / 1e3}
        for found in passes
    ]


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
    times = layer_times(specs, args.rounds)
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
    other = ["all else"]
    for found in times:
        other += ["-", f"{found['other']:,.0f}", "-"]
    total = ["together"]
    for cost, found in zip(costs, times, strict=True):
        took, macs = sum(found.values()), sum(cost.values())
        total += [f"{macs / 1e6:,.1f}", f"{took:,.0f}", f"{macs / took / 1e3:,.0f}"]
    head = ["layer"]
    for name in names:
        head += [f"{name}: million MACs", "us", "GMAC/s"]
    text = f"{machine('cpu', 1)}, {precision}.\n\n{table(head, [*lines, other, total])}"
    print(text)
    if args.markdown:
        write_section(args.markdown, "layers", text)


if __name__ == "__main__":
    main()
