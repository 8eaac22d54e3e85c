"""What an analysis costs, and what it costs inference: ``python -m benchmarks.covariance --data DIR``.

Four parts, ``--only`` chooses: ``pace`` (sums against the forward pass alone, taking turns block by block),
``memory`` (of a process that sums 1,000 and one that sums 10,000 images), ``direct`` (against storing all
samples), ``latency`` (inference at half its capacity, without and with an analysis, taking turns).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

from rootmodels.parquet_images import ParquetImages
from rootmodels.processor import cpu_name
from rootmodels.weights_info import PRETRAINED_DIR, weights_path
from rootserve.client.load.options import LoadOptions
from rootserve.client.load.runner import run_load
from rootserve.server.engines.base import LoadSpec
from rootserve.server.machine import cpu_count
from rootserve.v1 import analysis_pb2 as pb
from rootserve.v1 import analysis_pb2_grpc
from tests.support.server_process import ServerProcess, running_server

ANALYSED = "nin-orig"
SERVED = "nin-root-16"
BLOCK = 320


def blocks(data: Path, images: int) -> Iterable[NDArray[np.uint8]]:
    """The first ``images`` of ``data``, a block at a time."""
    source = ParquetImages(data)
    for start in range(0, min(images, source.images), BLOCK):
        yield source.read(start, min(BLOCK, min(images, source.images) - start))


def pace(data: Path, images: int) -> dict[str, object]:
    """All adjacent pairs against the forward pass alone: same module, same threads."""
    import torch  # noqa: PLC0415 - the other parts' memory must not have it

    from rootmodels.analysis.capture import Capture  # noqa: PLC0415
    from rootmodels.analysis.layers import analysable_layers  # noqa: PLC0415
    from rootmodels.analysis.sums import make_plan  # noqa: PLC0415
    from rootserve.server.engines.torch_eager import build_module  # noqa: PLC0415

    torch.set_num_threads(cpu_count())
    spec = LoadSpec(ANALYSED, weights_path(ANALYSED, PRETRAINED_DIR), "cpu", cpu_count())
    module = build_module(spec)
    plan = make_plan(analysable_layers(module.layers))
    capture = Capture(module, plan)
    seconds: dict[str, list[float]] = {"forward": [], "sums": []}
    done = 0
    for block in blocks(data, images):
        began = time.perf_counter()
        with torch.inference_mode():
            for part in torch.split(torch.from_numpy(block), 16):
                module(part)
        middle = time.perf_counter()
        capture.add(block)
        seconds["forward"].append(middle - began)
        seconds["sums"].append(time.perf_counter() - middle)
        done += len(block)
    began = time.perf_counter()
    capture.sums()
    ratios = sorted(b / a for a, b in zip(*seconds.values(), strict=True))
    forward_s, sums_s = (sum(times) for times in seconds.values())
    return {
        "images": done,
        "pairs": len(plan.pairs),
        "forward_images_per_s": round(done / forward_s, 1),
        "sums_images_per_s": round(done / sums_s, 1),
        "ratio": round((sums_s + time.perf_counter() - began) / forward_s, 3),
        "ratio_per_block": [round(ratios[0], 3), round(ratios[-1], 3)],
    }


_MEASURED = """
import resource, sys, time
from pathlib import Path
from benchmarks import covariance
began = time.perf_counter()
before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
getattr(covariance, sys.argv[1])(Path(sys.argv[2]), int(sys.argv[3]))
after_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(time.perf_counter() - began, after_kb / 1024)
"""


def measured(work: str, data: Path, images: int) -> dict[str, object]:
    """Seconds and peak memory of a process that does ``work`` on ``images``."""
    command = [sys.executable, "-c", _MEASURED, work, str(data), str(images)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, result.stdout.split())
    return {"images": images, "seconds": round(seconds, 1), "peak_mib": round(megabytes)}


def sum_up(data: Path, images: int) -> None:
    """All adjacent pairs from sums, whitened."""
    from rootmodels.analysis.capture import Capture  # noqa: PLC0415 - imports torch
    from rootmodels.analysis.derived import Kind, derive  # noqa: PLC0415
    from rootmodels.analysis.layers import analysable_layers  # noqa: PLC0415
    from rootmodels.analysis.sums import make_plan  # noqa: PLC0415
    from rootserve.server.engines.torch_eager import build_module  # noqa: PLC0415

    spec = LoadSpec(ANALYSED, weights_path(ANALYSED, PRETRAINED_DIR), "cpu", cpu_count())
    module = build_module(spec)
    capture = Capture(module, make_plan(analysable_layers(module.layers)))
    for block in blocks(data, images):
        capture.add(block)
    derive(capture.sums(), {Kind.COVARIANCE, Kind.WHITENED})


def store_all(data: Path, images: int) -> None:
    """The same by the book: store every layer's samples, up-sample, whiten, multiply; in NumPy."""
    import torch  # noqa: PLC0415 - see above

    from rootmodels.analysis.layers import Stage, analysable_layers  # noqa: PLC0415
    from rootmodels.analysis.responses import responses  # noqa: PLC0415
    from rootserve.server.engines.torch_eager import build_module  # noqa: PLC0415

    spec = LoadSpec(ANALYSED, weights_path(ANALYSED, PRETRAINED_DIR), "cpu", cpu_count())
    module = build_module(spec)
    maps: dict[str, list[NDArray[np.float32]]] = {}
    with torch.inference_mode():
        for block in blocks(data, images):
            for name, response in responses(module, torch.from_numpy(block), Stage.AFTER_RELU):
                maps.setdefault(name, []).append(response.numpy())
    layers = [layer.name for layer in analysable_layers(module.layers)]
    stored = {name: np.concatenate(maps.pop(name)) for name in layers}
    for first, second in pairwise(layers):
        size = max(stored[first].shape[2], stored[second].shape[2])
        x1, x2 = (_centred(stored[name], size) for name in (first, second))
        samples = len(x1)
        whitenings = []
        for x in (x1, x2):
            values, vectors = np.linalg.eigh(x.T @ x / (samples - 1))
            whitenings.append((vectors / np.sqrt(np.maximum(values, 1e-30))) @ vectors.T)
        (x1 @ whitenings[0]).T @ (x2 @ whitenings[1]) / (samples - 1)


def _centred(maps: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """Up-sampled float64 samples less their mean."""
    times = size // maps.shape[2]
    large = maps.repeat(times, axis=2).repeat(times, axis=3).transpose(0, 2, 3, 1)
    samples = large.reshape(-1, maps.shape[1]).astype(np.float64)
    samples -= samples.mean(axis=0)
    return samples


def memory(data: Path, images: int) -> list[dict[str, object]]:
    """Peak memory for a tenth of ``images``, and for all of them."""
    return [measured("sum_up", data, images // 10), measured("sum_up", data, images)]


def direct(data: Path, images: int) -> dict[str, object]:
    """Sums against stored samples, for numbers of images that can be stored."""
    sizes = [max(1, images // 100), max(2, images // 50), max(4, images // 25)]
    return {
        "stored": [measured("store_all", data, size) for size in sizes],
        "sums": [measured("sum_up", data, size) for size in sizes],
    }


class _EndlessAnalysis:
    """Runs one analysis after the other until it is left; counts their images."""

    def __init__(self, server: ServerProcess) -> None:
        self._stub = analysis_pb2_grpc.AnalysisServiceStub(server.channel)
        self._stop = threading.Event()
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.images = 0

    def __enter__(self) -> _EndlessAnalysis:
        self._thread.start()
        self._began.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._analyse_once(self.images)
        finally:
            self._began.set()

    def _analyse_once(self, before: int) -> None:
        spec = pb.AnalysisSpec(model=ANALYSED, dataset_images=pb.DatasetImages(name="data"))
        call = self._stub.Analyze(iter([pb.AnalyzeRequest(spec=spec)]))
        for response in call:
            if done := response.progress.images_done:
                # Only once it has begun to compute: loading is no load.
                self._began.set()
                self.images = before + done
            if self._stop.is_set():
                call.cancel()
                break


def latency(data: Path, rounds: int, seconds: float) -> dict[str, object]:
    """Inference at half the capacity, an open loop of single images, with and without an analysis."""
    models = f"{SERVED},{ANALYSED}"
    found: dict[str, list[dict[str, float]]] = {"alone": [], "with_analysis": []}
    with running_server(
        "--models", models, "--device", "cpu", "--datasets", f"data={data}"
    ) as server:
        closed = LoadOptions(
            model=SERVED, server=server.address, concurrency=16, duration_s=5.0, warmup_s=1.0
        )
        rate = 0.5 * asyncio.run(run_load(closed)).throughput_requests_per_s
        images = 0
        for round_ in range(rounds):
            options = LoadOptions(
                model=SERVED,
                server=server.address,
                rate=rate,
                duration_s=seconds,
                warmup_s=1.0,
                seed=round_,
            )
            # A B, then B A: a machine that drifts favours neither.
            for which in sorted(found, reverse=bool(round_ % 2)):
                if which == "alone":
                    found[which].append(_milliseconds(options))
                    continue
                with _EndlessAnalysis(server) as analysis:
                    before = analysis.images
                    found[which].append(_milliseconds(options))
                    images += analysis.images - before
    mean = {which: statistics.mean(one["p99"] for one in runs) for which, runs in found.items()}
    ratios = [
        busy["p99"] / alone["p99"]
        for alone, busy in zip(found["alone"], found["with_analysis"], strict=True)
    ]
    return {
        "rate_per_s": round(rate, 1),
        **found,
        "mean_p99_ms": {which: round(value, 2) for which, value in mean.items()},
        "ratio_of_means": round(mean["with_analysis"] / mean["alone"], 3),
        "p99_ratio": round(statistics.median(ratios), 3),
        "p99_ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "analysed_images_per_s": round(images / (rounds * (seconds + 1)), 1),
    }


def _milliseconds(options: LoadOptions) -> dict[str, float]:
    result = asyncio.run(run_load(options))
    assert not result.errors, result.errors
    times = result.response_time_s
    return {name: round(1e3 * (getattr(times, name) or 0.0), 2) for name in ("p50", "p99")}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10: parquet, or its folder")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=4, help="of the part latency")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of its windows")
    parser.add_argument("--only", default="pace,memory,direct,latency")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)

    report: dict[str, object] = {
        "machine": {
            "cpu": cpu_name(),
            "processors": cpu_count(),
            "python": platform.python_version(),
            "grpc": grpc.__version__,
            **{name: metadata.version(name) for name in ("torch", "openvino", "numpy")},
        }
    }
    for part in args.only.split(","):
        match part:
            case "pace":
                report[part] = pace(args.data, args.images)
            case "memory":
                report[part] = memory(args.data, args.images)
            case "direct":
                report[part] = direct(args.data, args.images)
            case "latency":
                report[part] = latency(args.data, args.rounds, args.seconds)
            case _:
                parser.error(f"--only {part}: expected pace, memory, direct, latency")
        print(json.dumps({part: report[part]}, indent=1), flush=True)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
