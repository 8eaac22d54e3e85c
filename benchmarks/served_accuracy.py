"""Accuracy through the service: ``python -m benchmarks.served_accuracy --data DIR``.

For each engine and precision it starts a real server, sends every test image over gRPC to every model,
and compares with the folded network in fp32. Prints a table. ``--json`` writes it; what was measured
before on the same machine, and not again, stays in the file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import torch

from rootmodels.cifar10 import LabelledImages
from rootmodels.processor import cpu_name
from rootmodels.train_run import accuracy
from rootmodels.variants import VARIANTS
from rootmodels.weights import load_weights
from rootmodels.weights_info import weights_path, with_weights
from rootserve.client.dataset import Dataset, read_dataset
from rootserve.client.evaluate import accuracy as served_accuracy
from rootserve.client.inference import AsyncClient
from rootserve.server.machine import cpu_count
from tests.support.server_process import running_server

ALLOWED = {"int8": 0.003}
"""How far a precision may be from fp32; 0.002 for those that are not named."""


@dataclass(frozen=True, slots=True)
class Row:
    """One model in one engine and precision, over all images. Accuracies are 0..1."""

    engine: str
    precision: str
    model: str
    accuracy: float
    fp32: float
    """Of the folded network in fp32, without a server."""
    images: int

    @property
    def difference(self) -> float:
        """How much better than in fp32 it is as served."""
        return self.accuracy - self.fp32

    @property
    def is_close(self) -> bool:
        """Whether it is as close to fp32 as its precision should be."""
        return abs(self.difference) <= ALLOWED.get(self.precision, 0.002)

    def __str__(self) -> str:
        where = f"{self.engine:10}{self.precision:11}{self.model:14}"
        return f"{where}{self.accuracy:8.4f}{self.difference:+12.4f}{self.images:8}"


async def measure(address: str, model: str, fp32: float, data: Dataset, rows: int) -> Row:
    """Send all of ``data`` to one served model. Engine and precision are those that its answers name."""
    async with AsyncClient(address) as client:
        timeline = (await client.infer(model, data.images[:1])).timeline
        assert timeline, "the server told no timeline"
        reached = await served_accuracy(client, model, data.images, data.labels, rows=rows)
    return Row(timeline.engine, timeline.precision, model, reached, fp32, len(data.labels))


def reference(model: str, data: Dataset) -> float:
    """Accuracy of the folded network in fp32, without a server."""
    network, _ = load_weights(weights_path(model))
    return accuracy(network.fold(), LabelledImages(data.images, data.labels), torch.device("cpu"))


def server_arguments(engine: str, precision: str, models: Sequence[str], device: str) -> list[str]:
    """Options of a server with these models in this engine and precision."""
    options = ["--engine", engine, "--precision", precision]
    return [*options, "--models", ",".join(models), "--device", device]


def machine(device: str) -> dict[str, object]:
    """What it was measured on."""
    there = {package.name for package in metadata.distributions()}
    versions = {name: metadata.version(name) for name in ("torch", "openvino") if name in there}
    python = platform.python_version()
    return {
        "cpu": cpu_name(),
        "processors": cpu_count(),
        "device": device,
        "python": python,
    } | versions


def write(path: Path, where: dict[str, object], results: Sequence[Row]) -> None:
    """Write ``results`` as JSON, and keep other rows of the same machine that are there."""
    new = {(row.engine, row.precision, row.model): asdict(row) for row in results}
    old = json.loads(path.read_text()) if path.exists() else {"machine": None, "rows": []}
    rows = old["rows"] if old["machine"] == where else []
    rows = {(row["engine"], row["precision"], row["model"]): row for row in rows} | new
    order = list(VARIANTS)
    ordered = sorted(rows.values(), key=lambda row: order.index(row["model"]))
    path.write_text(json.dumps({"machine": where, "rows": ordered}, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; 1 if a served model is further from fp32 than its precision may be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 in parquet")
    parser.add_argument(
        "--engines", default="openvino:fp32,torch:fp32", help="ENGINE:PRECISION,..."
    )
    parser.add_argument(
        "--models", default=",".join(with_weights()), help="default: all with weights"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=25, help="images per request")
    parser.add_argument("--images", type=int, help="only the first ones")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)

    data = read_dataset(args.data, args.images)
    models = args.models.split(",")
    fp32 = {model: reference(model, data) for model in models}
    results = []
    print(
        f"{'engine':10}{'precision':11}{'model':14}{'accuracy':>8}{'difference':>12}{'images':>8}"
    )
    for pair in args.engines.split(","):
        engine, _, precision = pair.partition(":")
        options = server_arguments(engine, precision or "fp32", models, args.device)
        with running_server(*options) as server:
            for model in models:
                row = asyncio.run(measure(server.address, model, fp32[model], data, args.rows))
                results.append(row)
                print(row, flush=True)
                if args.json:
                    write(args.json, machine(args.device), results)

    far = [row for row in results if not row.is_close]
    for row in far:
        print(f"{row.model} in {row.engine} {row.precision} is too far from fp32")
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
