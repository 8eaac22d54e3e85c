"""What serving costs on a GPU, most important first: ``python -m benchmarks.gpu --json measure.json``.

Every figure is written as soon as it is measured, and what fails is told of and left out, so that a machine
lent for minutes loses nothing. Parts: ``bare`` engines without a server, with the copies (``images_per_s``)
and on the device alone (``device_images_per_s``); ``layers``, microseconds of each; ``served``, callers in a
closed loop; ``start`` of a server with all fourteen NiN models; ``resnet50``. On a CPU (``--device cpu``)
the same code runs with engine torch, as a rehearsal.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import grpc
import numpy as np
from tritonclient.grpc import service_pb2_grpc

from benchmarks.closed_loop import Load, random_images
from benchmarks.rounds import machine
from benchmarks.server_process import SERVER_COMMAND, Server, serving
from rootmodels.weights_info import weights_path, with_weights
from rootserve.server.engines.base import LoadSpec, Precision
from rootserve.server.engines.profiling import measure as measure_layers
from rootserve.server.engines.registry import ENGINES, get_loader, get_profiler_loader
from rootserve.server.observers.metrics_state import process_usage
from tests.support.server_process import infer_request

PARTS = ("bare", "layers", "variants", "served", "start", "resnet50")
PAIR = ("nin-orig", "nin-root-16")
LOADS = (Load(1, 1), Load(8, 1), Load(32, 1), Load(128, 1), Load(128, 16))
RESNETS = ("resnet50-orig", "resnet50-root-16", "resnet50-root-64")
PRECISION: tuple[Precision, ...] = ("bf16", "fp32", "fp16")
_PROCESSES = 8
"""Of callers at most: one cannot load a GPU."""


_MAX_ROWS = 128
"""Of a served batch: the default is for processors."""


@dataclass(frozen=True, slots=True)
class Job:
    """One figure, or a few that belong together."""

    part: str
    name: str
    measure: Callable[[], Any]


class Settings:
    """What the command line asks for."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device: str = args.device
        self.seconds: float = args.seconds
        on_gpu = self.device != "cpu"
        self.engines: list[str] = (
            args.engines.split(",")
            if args.engines
            else ["cuda-graphs", "cuda-kernels"]
            if on_gpu
            else ["torch"]
        )
        self.log: Path = args.json.with_name("server.log")

    def spec(self, model: str, precision: Precision = "fp32") -> LoadSpec:
        """The shipped weights, or random ones where there are none."""
        path = weights_path(model)
        return LoadSpec(model, path if path.exists() else None, self.device, 2, precision)

    def server_errors(self) -> str:
        """The end of what servers told, if any did."""
        return self.log.read_text()[-1500:] if self.log.exists() else ""

    def able(self, engine: str, precision: Precision) -> bool:
        """Whether there is anything to measure."""
        return precision in ENGINES[engine].precisions


def images(rows: int, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The same ones every time."""
    return np.random.default_rng(0).integers(0, 256, (rows, 3, size, size), dtype=np.uint8)


def bare(settings: Settings, engine: str, spec: LoadSpec, rows: Sequence[int]) -> dict[str, Any]:
    """Images per second at each batch size, with and without the copies, and how long the first took."""
    began_s = time.perf_counter()
    loaded = get_loader(engine)(spec)
    found: dict[str, Any] = {"load_s": time.perf_counter() - began_s, "rows": {}}
    for count in rows:
        batch = images(count, spec.image_size())
        began_s = time.perf_counter()
        loaded.run(batch)
        first_s = time.perf_counter() - began_s
        rates = []
        for _ in range(3):
            loaded.run(batch)
            calls, began_s = 0, time.perf_counter()
            while (took_s := time.perf_counter() - began_s) < settings.seconds / 10:
                loaded.run(batch)
                calls += 1
            rates.append(count * max(1, calls) / took_s)
        result = {"first_s": first_s, "images_per_s": [round(rate) for rate in rates]}
        if hasattr(loaded, "device_s"):
            took_s = loaded.device_s(batch, 20)
            result |= {"device_us": took_s * 1e6, "device_images_per_s": round(count / took_s)}
        if hasattr(loaded, "choices"):
            result["choices"] = loaded.choices(batch)
        found["rows"][str(count)] = result
    return found


def layers(spec: LoadSpec, rows: int) -> dict[str, Any]:
    """Microseconds of each layer on engine torch, each waited for: what they are among each other."""
    found = measure_layers(get_profiler_loader("torch")(spec), images(rows, spec.image_size()))
    times = {name: one.median / 1e3 for name, one in found.layers.items()}
    return {"us": times, "other_us": found.other.median / 1e3, "total_us": found.total.median / 1e3}


def server_command(settings: Settings, models: str, engine: str, precision: str) -> list[str]:
    """What starts a server."""
    command = [*SERVER_COMMAND]
    command += ["--models", models, "--device", settings.device, "--engine", engine]
    return [
        *command,
        "--precision",
        precision,
        "--max-batch-rows",
        str(_MAX_ROWS),
        "--max-queue-rows",
        "8192",
    ]


def served(settings: Settings, engine: str, model: str, precision: str) -> dict[str, Any]:
    """Images per second under each load, and the memory that was held at the end."""
    found: dict[str, Any] = {}
    with serving(server_command(settings, model, engine, precision), settings.log) as server:
        warm_up(server, model)
        for load in LOADS:
            try:
                found[load.name] = round(callers(server.address, model, load, settings.seconds))
            except Exception as error:  # noqa: BLE001 - the next load is worth having
                found[load.name] = str(error)[-500:]
        return {"images_per_s": found, **memory(server)}


def warm_up(server: Server, model: str) -> None:
    """Have the engine prepare itself for each size of batch."""
    with grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for rows in (1, 2, 4, 8, 16, 32, 64, _MAX_ROWS):
            stub.ModelInfer(infer_request(model, random_images(rows)), timeout=60)


def callers(address: str, model: str, load: Load, seconds: float) -> float:
    """Images per second that ``load``, shared among several processes, gets answered."""
    count = min(_PROCESSES, load.callers)
    command = [sys.executable, "-m", "benchmarks.callers", address, "--model", model]
    command += ["--callers", str(load.callers // count), "--rows", str(load.rows)]
    command += ["--seconds", str(seconds)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    answers = [process.communicate(timeout=seconds + 60) for process in running]
    failed = [error for process, (_, error) in zip(running, answers, strict=True) if process.poll()]
    if failed:
        raise RuntimeError(f"{len(failed)} of {count} callers failed: {failed[0][-500:]}")
    return sum(float(answer) for answer, _ in answers)


def memory(server: Server) -> dict[str, Any]:
    """MiB held by the front process, each worker, and on the GPU in all."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    usages = [process_usage(int(pid)) for pid in children]
    found = {
        "front_mib": round(server.resident_bytes() / 2**20),
        "workers_mib": [round(usage[1] / 2**20) for usage in usages if usage],
    }
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return found
    return found | {"gpu_mib": [int(line) for line in told.split()]}


def start(settings: Settings, engine: str, precision: str) -> dict[str, Any]:
    """Seconds from the command to all fourteen NiN models being ready, and the memory held then."""
    names = ",".join(with_weights())
    began_s = time.perf_counter()
    with serving(server_command(settings, names, engine, precision), settings.log) as server:
        return {"ready_s": time.perf_counter() - began_s, **memory(server)}


def jobs(settings: Settings) -> Iterator[Job]:
    """All there is to measure, most important first within each part."""
    able = [(e, p) for p in PRECISION for e in settings.engines if settings.able(e, p)]
    # Its kernels are compiled for each precision: half a minute that fp16 is not worth.
    engines = [one for one in able if one != ("cuda-kernels", "fp16")]
    many = (128, 1, 8, 32, 512) if settings.device != "cpu" else (8, 1)
    for engine, precision in engines:
        for model in PAIR:
            spec = settings.spec(model, precision)
            yield Job(
                "bare",
                f"{engine} {precision} {model}",
                lambda e=engine, s=spec: bare(settings, e, s, many),
            )
    for model in PAIR:
        spec = settings.spec(model, "bf16")
        yield Job("layers", f"torch bf16 {model}", lambda s=spec: layers(s, many[0]))
    first = engines[0]
    for engine, precision in engines:
        for name in with_weights():
            if name not in PAIR:
                spec = settings.spec(name, precision)
                yield Job(
                    "variants",
                    f"{engine} {precision} {name}",
                    lambda e=engine, s=spec: bare(settings, e, s, many[:1]),
                )
    for engine, precision in engines[: len(settings.engines)]:
        for model in PAIR:
            yield Job(
                "served",
                f"{engine} {precision} {model}",
                lambda e=engine, m=model, p=precision: served(settings, e, m, p),
            )
    yield Job("start", f"{first[0]} {first[1]}", lambda: start(settings, *first))
    large = (10, 1, 64) if settings.device != "cpu" else (1,)
    for engine, precision in engines:
        for model in RESNETS:
            spec = settings.spec(model, precision)
            yield Job(
                "resnet50",
                f"{engine} {precision} {model}",
                lambda e=engine, s=spec: bare(settings, e, s, large),
            )
    yield Job("resnet50", "served", lambda: served_resnet(settings, *first))


def served_resnet(settings: Settings, engine: str, precision: str) -> dict[str, Any]:
    """Images per second of one ResNet-50, asked by one caller after another."""
    model, rows = RESNETS[1], 1
    with serving(server_command(settings, model, engine, precision), settings.log) as server:
        with grpc.insecure_channel(server.address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            request = infer_request(model, images(rows, 224))
            for _ in range(3):
                stub.ModelInfer(request, timeout=60)
            calls, began_s = 0, time.perf_counter()
            while (took_s := time.perf_counter() - began_s) < settings.seconds:
                stub.ModelInfer(request, timeout=60)
                calls += 1
        return {"model": model, "images_per_s": calls * rows / took_s, **memory(server)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; exit status 1 if a figure failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--device", default="cuda:0")
    add("--engines", default="", help="default: cuda-graphs, or torch on a CPU")
    add("--parts", default=",".join(PARTS))
    add("--only", default="", help="jobs whose name has this in it")
    add("--seconds", type=float, default=3.0, help="of each served load")
    add("--budget", type=float, default=240.0, help="seconds after which no job begins")
    add("--json", type=Path, required=True)
    args = parser.parse_args(arguments)
    parts = args.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--parts: {unknown} came, expected some of {PARTS}")
    assert set(get_args(Precision)) >= set(PRECISION)
    settings = Settings(args)
    end_s = time.monotonic() + args.budget
    content: dict[str, Any] = {"machine": machine(args.device, 2), "skipped": [], "failed": {}}
    for job in jobs(settings):
        if job.part not in parts or args.only not in job.name:
            continue
        began_s = time.monotonic()
        if began_s > end_s:
            content["skipped"].append(f"{job.part} {job.name}")
        else:
            try:
                result = job.measure()
                content.setdefault(job.part, {})[job.name] = result
                print(f"{job.part} {job.name}: {short(result)}", end=" ")
            except Exception as error:  # noqa: BLE001 - the next figure is worth having
                content["failed"][f"{job.part} {job.name}"] = traceback.format_exc()[-3000:]
                print(
                    f"{job.part} {job.name}: FAILED, {str(error)[:500]}\n{settings.server_errors()}",
                    end=" ",
                )
            print(f"[{time.monotonic() - began_s:.1f} s]", flush=True)
        args.json.write_text(json.dumps(content, indent=1) + "\n")
    for name in content["skipped"]:
        print(f"{name}: not begun, no time left")
    return 1 if content["failed"] else 0


def winners(choices: dict[str, dict[str, float]]) -> str:
    """The fastest way of each layer."""
    return ", ".join(f"{name}: {min(us, key=us.__getitem__)}" for name, us in choices.items())


def short(result: dict[str, Any]) -> str:
    """A result in a line or two, without the parts that are long."""
    if "rows" in result:
        return "; ".join(
            f"{rows} rows {max(one['images_per_s']):,}/s"
            + (f", device {one['device_images_per_s']:,}/s" if "device_us" in one else "")
            + (f", {winners(one['choices'])}" if "choices" in one else "")
            for rows, one in result["rows"].items()
        )
    return json.dumps(result, default=str)[:1500]


if __name__ == "__main__":
    sys.exit(main())
