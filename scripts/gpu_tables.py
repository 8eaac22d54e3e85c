"""Write the tables of docs/gpu.md from docs/figures/gpu-*.json: ``python -m scripts.gpu_tables``.

benchmarks/training.py and benchmarks/gpu.py measured them. ``--check`` writes nothing, and ends with status 1
if the page is stale.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.accuracy_tables import table, with_section

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "gpu.md"
TRAINING = ROOT / "docs" / "figures" / "gpu-training.json"
MEASURED = ROOT / "docs" / "figures" / "gpu-measure.json"
NETWORKS = ("nin-orig", "nin-root-16")


def training_table(content: dict[str, Any]) -> str:
    """Images per second of training steps."""
    rows = []
    for row in content["rows"]:
        names = row["variants"]
        name = f"`{names[0]}`" if len(names) == 1 else f"{len(names)} variants"
        rate = f"{row['images_per_s']['median']:,.0f}"
        rows.append([name, row["way"], rate, f"{row['tflops']:.0f}"])
    return table(["network", "computed", "images/s", "TFLOP/s"], rows)


def bare_table(content: dict[str, Any]) -> str:
    """Images per second of the engines, with copies and on the device alone."""
    sizes = sorted({int(size) for one in content["bare"].values() for size in one["rows"]})
    rows = []
    for job, found in content["bare"].items():
        engine, precision, model = job.split()
        cells = [found["rows"][str(size)] for size in sizes]
        told = [
            f"{max(cell['images_per_s']):,} ({cell['device_images_per_s']:,})" for cell in cells
        ]
        rows.append([f"`{model}`", engine, precision, *told])
    return table(["network", "engine", "precision", *map(str, sizes)], rows)


def layers_table(content: dict[str, Any], rows_at: str = "128") -> str:
    """Microseconds of each layer: cuDNN's, and the fastest way."""
    jobs = [content["bare"][f"cuda-kernels bf16 {name}"]["rows"][rows_at] for name in NETWORKS]
    names = [name for name in jobs[0]["choices"] if "+" not in name]
    lines = []
    for name in names:
        cells = []
        for job in jobs:
            times = job["choices"][name]
            best = min(times, key=times.__getitem__)
            cells += [f"{times['cudnn']:.0f}", f"{times[best]:.0f} ({best})"]
        lines.append([name, *cells])
    head = ["layer", *(f"{name}: {what}" for name in NETWORKS for what in ("cuDNN", "fastest"))]
    return table(head, lines)


def served_table(content: dict[str, Any]) -> str:
    """Images per second of callers, a column for each callers x images."""
    loads = list(next(iter(content["served"].values()))["images_per_s"])
    rows = [
        [f"`{job.split()[2]}`", *(f"{found['images_per_s'][load]:,}" for load in loads)]
        for job, found in content["served"].items()
    ]
    return table(["network", *loads], rows)


def page() -> str:
    """The page as it should be."""
    measured = json.loads(MEASURED.read_text())
    sections = {
        "training": training_table(json.loads(TRAINING.read_text())),
        "engines": bare_table(measured),
        "layers": layers_table(measured),
        "served": served_table(measured),
    }
    text = PAGE.read_text()
    for name, body in sections.items():
        text = with_section(text, name, body, "scripts/gpu_tables.py")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, say if it is stale")
    args = parser.parse_args(arguments)
    text = page()
    if text == PAGE.read_text():
        return 0
    if args.check:
        print("docs/gpu.md is not current: run python -m scripts.gpu_tables")
        return 1
    PAGE.write_text(text)
    print("docs/gpu.md is written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
