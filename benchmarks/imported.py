"""An imported network against one of a family, as served: ``python -m benchmarks.imported``.

torchvision's resnet50 is imported into a model file and served beside ``resnet50-v1.5``, the same network of
a family: in one service, by one engine, both with random weights. They are loaded in turns,
forwards and backwards, so that a machine whose speed drifts is the same machine for both, and compared by the
ratio within each round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.rounds import Rates, machine, ratios, spread
from benchmarks.server_process import SERVER_COMMAND, serving
from rootmodels.weights_info import weights_path
from rootserve.client.load import LoadOptions, run_load
from rootserve.server.machine import cpu_count

OURS, IMPORTED = "resnet50-v1.5", "imported-resnet50"
_SIDE = 224


def import_resnet50(folder: Path) -> None:
    """Write the model file that is served."""
    source = ["torchvision:resnet50", "--name", IMPORTED, "--image-size", str(_SIDE)]
    command = [sys.executable, "-m", "rootmodels", "import", *source, "--out", str(folder)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    assert weights_path(IMPORTED, folder).is_file()


def server_command(folder: Path, precision: str) -> list[str]:
    """What starts a service with both."""
    start = [*SERVER_COMMAND]
    start += ["--device", "cpu", "--engine", "openvino", "--precision", precision]
    return [*start, "--weights", str(folder), "--models", f"{OURS},{IMPORTED}"]


async def measure(address: str, args: argparse.Namespace) -> Rates[str]:
    """Images per second of both in each round.

    Raises:
        RuntimeError: if a request failed.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (args.rows * 2, 3, _SIDE, _SIDE), dtype=np.uint8)
    found: Rates[str] = {OURS: [], IMPORTED: []}
    for number in range(args.rounds):
        for name in reversed(found) if number % 2 else found:
            options = LoadOptions(
                model=name,
                server=address,
                concurrency=args.callers,
                duration_s=args.seconds,
                warmup_s=min(1.0, args.seconds / 4),
                rows=args.rows,
            )
            result = await run_load(options, images)
            if result.errors or not result.succeeded:
                raise RuntimeError(f"requests to {name} failed: {dict(result.errors)}")
            found[name].append(result.throughput_rows_per_s)
        last = ", ".join(f"{name} {rates[-1]:.1f}" for name, rates in found.items())
        print(f"round {number + 1} of {args.rounds}: {last} images/s", file=sys.stderr, flush=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imported", description=__doc__)
    add = parser.add_argument
    add("--precision", default="fp32", choices=("fp32", "bf16"))
    add("--callers", type=int, default=4, help="each with a request under way")
    add("--rows", type=int, default=4, help="images in a request")
    add("--rounds", type=int, default=8)
    add("--seconds", type=float, default=5.0, help="of each turn")
    add("--json", type=Path, metavar="FILE")
    args = parser.parse_args(arguments)
    where = f"{machine('cpu', cpu_count())}, {args.precision}; load {os.getloadavg()[0]:.1f}"
    with tempfile.TemporaryDirectory() as folder:
        import_resnet50(Path(folder))
        with serving(server_command(Path(folder), args.precision)) as server:
            found = asyncio.run(measure(server.address, args))
    print(where)
    print(
        f"{args.callers} callers x {args.rows} images, {args.rounds} rounds; median and quartiles"
    )
    for name, rates in found.items():
        print(f"{name:18} {spread(rates, 1)} images/s")
    print(f"{IMPORTED} / {OURS}: {spread(ratios(found[IMPORTED], found[OURS]), 3)}")
    if args.json:
        args.json.write_text(json.dumps({"machine": where, "images_per_s": found}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
