"""Images per second of the engines, without a server: ``python -m benchmarks.engines``.

Everything that is compared takes turns within each round, forwards and backwards, so that a machine whose
speed drifts is the same machine for all of it; ratios are formed within a round. Writes JSON and, with
``--markdown docs/engines.md``, the tables there. Variants without weights are measured with random ones.
Held to an older processor's instructions (ONEDNN_MAX_CPU_ISA), it writes the section of that.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.engine_tables import accuracy_table, engines_table, variants_table, write_section
from benchmarks.rounds import Rates, machine, take_turns
from rootmodels.calibration import Calibration, file_sha256, write_calibration
from rootmodels.check_images import check_images
from rootmodels.network import Network
from rootmodels.ranges import measure_ranges
from rootmodels.variants import get_variant
from rootmodels.weights import save_weights
from rootmodels.weights_info import WeightsInfo, weights_path, with_weights
from rootserve.server.engines.base import Engine, LoadSpec, Precision
from rootserve.server.engines.registry import ENGINES, get_loader
from rootserve.server.machine import cpu_count

Key = tuple[str, Precision, str, int]
"""Engine, precision, variant, rows of a batch."""

SERVED_ROWS = 16


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "table",
        choices=["engines", "variants", "accuracy"],
        help="engines compared, variants compared, or what python -m rootserve.server.calibrate measured",
    )
    add("--device", default="cpu")
    add("--engines", default="openvino,torch")
    add("--precisions", default="fp32,bf16,int8")
    add("--variants", default="", help="default: those with weights")
    add("--rows", default="1,8,32", help="of a batch, in the table of engines")
    add("--threads", type=int, default=cpu_count())
    add("--rounds", type=int, default=25)
    add(
        "--seconds",
        type=float,
        default=0.05,
        help="per measurement; short, because a shared machine's speed drifts",
    )
    add("--json", type=Path)
    add("--markdown", type=Path, help="page whose section is written anew")
    args = parser.parse_args(arguments)
    if args.table == "accuracy":
        _publish(args.markdown, args.table, accuracy_table())
        return
    precisions = args.precisions.split(",")
    variants = args.variants.split(",") if args.variants else with_weights()
    if args.table == "engines":
        rows = [int(count) for count in args.rows.split(",")]
        engines = args.engines.split(",")
    else:
        rows = [SERVED_ROWS]
        engines = args.engines.split(",")[:1]
    with tempfile.TemporaryDirectory() as folder:
        specs = {name: _spec(name, args.device, args.threads, Path(folder)) for name in variants}
        loaded = dict(_load(specs, engines, precisions))
        runs = {
            (*key, count): _runner(engine, specs[key[2]], count)
            for key, engine in loaded.items()
            for count in rows
        }
        rates: Rates[Key] = take_turns(
            runs, {key: key[3] for key in runs}, args.rounds, args.seconds
        )
    told = machine(args.device, args.threads)
    table = engines_table(rates, rows) if args.table == "engines" else variants_table(rates)
    if args.json:
        results = [
            dict(zip(("engine", "precision", "variant", "rows"), key, strict=True))
            | {"images_per_s": [round(rate, 1) for rate in found]}
            for key, found in rates.items()
        ]
        args.json.write_text(json.dumps({"machine": told, "results": results}, indent=1) + "\n")
    section = args.table
    if limit := os.environ.get("ONEDNN_MAX_CPU_ISA"):
        told, section = f"{told}, held to {limit}", f"{section} {limit}"
    _publish(args.markdown, section, f"{told}, {args.rounds} rounds.\n\n{table}")


def _publish(page: Path | None, name: str, text: str) -> None:
    print(text)
    if page is not None:
        write_section(page, name, text)


def _spec(name: str, device: str, threads: int, folder: Path) -> LoadSpec:
    """With the shipped weights, or else with random ones in ``folder`` whose ranges were measured."""
    path = weights_path(name)
    if not path.exists():
        path = weights_path(name, folder)
        network = Network(get_variant(name))
        save_weights(path, network, WeightsInfo(name, 0.1, 0, 0, 0, "", {}))
        ranges = measure_ranges(network.fold(), check_images(32), 32)
        write_calibration(path, Calibration(name, file_sha256(path), 32, ranges))
    return LoadSpec(name, path, device, threads)


def _load(
    specs: Mapping[str, LoadSpec], engines: Sequence[str], precisions: Sequence[Precision]
) -> Iterator[tuple[tuple[str, Precision, str], Engine]]:
    for name, spec in specs.items():
        for engine in engines:
            for precision in precisions:
                if precision in ENGINES[engine].precisions:
                    wanted = replace(spec, precision=precision)
                    yield (engine, precision, name), get_loader(engine)(wanted)


def _runner(engine: Engine, spec: LoadSpec, rows: int) -> object:
    size = spec.image_size()
    images = np.random.default_rng(0).integers(0, 256, (rows, 3, size, size), dtype=np.uint8)
    return lambda: engine.run(images)


if __name__ == "__main__":
    main()
