"""What an analysis on a Ray cluster costs on one machine, and that nothing changes its sums.

`python -m benchmarks.ray_analysis --data DIR` starts three nodes with a processor each and sums images of
CIFAR-10's test set in turn: in one process with one thread, on the three nodes, and once more there while a
node and then the command itself are killed, which is given again. Each is timed from its start to its end.
`--at-once` adds one process with a thread for each processor, on a machine with nothing else to do. `--write`
puts the table into docs/cluster.md. Takes about a quarter of an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.engine_tables import write_section
from rootmodels.distributed.analysis import PARTIAL_FOLDER, Analysis, Progress, Request
from rootmodels.distributed.tasks import Here
from rootmodels.processor import cpu_name
from rootserve.pictures.parquet import find_files
from rootserve.server.machine import cpu_count
from tests.support.ray_nodes import Nodes, ray_nodes

MODEL = "nin-root-16"
NODES = 3
PAGE = Path(__file__).parent.parent / "docs" / "cluster.md"
_LIMIT_S = 1800.0


@dataclass(frozen=True, slots=True)
class Run:
    """What was done, how long it took, and by how much its sums differ from those of one process, at most."""

    name: str
    seconds: float
    difference: float


class _Silent:
    def planned(self, plan: object) -> None:
        """Nothing to say."""

    def progress(self, progress: Progress) -> None:
        """Nothing to say."""


def sum_here(data: str, out: Path) -> None:
    """The shards one after the other, as the cluster sums them."""
    analysis = Analysis(Request(MODEL, data), out / PARTIAL_FOLDER, resume=False)
    sums = analysis.run(Here(), _Silent(), ()).sums
    np.save(out / "sums.npy", np.frombuffer(sums.to_bytes(), "<f8"))


def sum_at_once(data: str, out: Path) -> None:
    """All images as one stream, with all processors: what one would write for one machine."""
    from rootmodels.analysis.capture import Capture  # noqa: PLC0415 - imports torch
    from rootmodels.cifar10 import read_cifar10  # noqa: PLC0415
    from rootmodels.model_file import open_weights  # noqa: PLC0415
    from rootmodels.network import Network  # noqa: PLC0415
    from rootmodels.parameters import load_network  # noqa: PLC0415
    from rootmodels.weights_info import weights_path  # noqa: PLC0415

    path = weights_path(MODEL)
    module = Network.from_folded(load_network(path, open_weights(path)[0]))
    analysis = Analysis(Request(MODEL, data), out / PARTIAL_FOLDER, resume=False)
    capture = Capture(module, analysis.plan)
    for file in sorted(Path(data).glob("*.parquet")):
        capture.add(read_cifar10(file, "test").images)
    np.save(out / "sums.npy", np.frombuffer(capture.sums().to_bytes(), "<f8"))


ARMS = {"here": sum_here, "at-once": sum_at_once}


def command(data: Path, out: Path, nodes: Nodes, *more: str) -> list[str]:
    """The command that a user gives."""
    rootserve = str(Path(sys.executable).parent / "rootserve")
    what = ["analyze", "covariance", "--model", MODEL, "--data", str(data), "--ray", nodes.address]
    return [rootserve, *what, "--out", str(out), "--sums", "--no-pictures", *more]


def begin(words: list[str], nodes: Nodes) -> subprocess.Popen[bytes]:
    """Start a command; what it says is not wanted."""
    return subprocess.Popen(
        words, env=nodes.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait_for_shards(out: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Until the sums of ``count`` shards are kept in ``out``."""
    while len(list((out / PARTIAL_FOLDER).glob("*.sums"))) < count:
        if process.poll() is not None:
            raise RuntimeError(f"the command ended with {process.returncode} before it was to")
        time.sleep(0.2)


def end(process: subprocess.Popen[bytes]) -> None:
    """Until it has ended, well."""
    if process.wait(_LIMIT_S):
        raise RuntimeError(f"the command ended with {process.returncode}")


def sums_of(out: Path, data: Path) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """What a run left, in the order of ``Sums.to_bytes``; from the file of the command as well."""
    if (out / "sums.npy").exists():
        return np.asarray(np.load(out / "sums.npy"))
    plan = Analysis(Request(MODEL, str(data)), out / "none", resume=False).plan
    with np.load(out / "sums.npz") as found, np.load(out / "covariance.npz") as about:
        parts = [np.array([float(about["images"])])]
        parts += [found[f"mean/{layer.name}/"].ravel() for layer in plan.layers]
        parts += [found[f"scatter/{layer.name}/"].ravel() for layer in plan.layers]
        parts += [found[f"cross_scatter/{first}/{second}"].ravel() for first, second in plan.pairs]
    return np.concatenate(parts)


def difference(
    found: np.ndarray[tuple[int], np.dtype[np.float64]],
    expected: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> float:
    """The largest, as a share of the largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def measure(data: Path, folder: Path, shards: int, *, at_once: bool) -> list[Run]:
    """All runs, one after the other."""
    seconds: dict[str, float] = {}

    def timed(name: str, began: float) -> None:
        seconds[name] = time.perf_counter() - began
        print(f"{name}: {seconds[name]:.1f} s", flush=True)

    for name in ARMS if at_once else ("here",):
        out = folder / name
        out.mkdir()
        began = time.perf_counter()
        words = [sys.executable, "-m", "benchmarks.ray_analysis", "--arm", name]
        subprocess.run(
            [*words, "--data", str(data), "--out", str(out)], check=True, timeout=_LIMIT_S
        )
        timed(name, began)
    began = time.perf_counter()
    with ray_nodes(NODES) as nodes:
        timed("start", began)
        began = time.perf_counter()
        end(begin(command(data, folder / "nodes", nodes), nodes))
        timed("nodes", began)
        began = time.perf_counter()
        process = begin(command(data, folder / "killed", nodes), nodes)
        wait_for_shards(folder / "killed", shards // 3, process)
        nodes.ask("kill")
        wait_for_shards(folder / "killed", 2 * shards // 3, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        end(begin(command(data, folder / "killed", nodes, "--resume"), nodes))
        timed("killed", began)
    expected = sums_of(folder / "here", data)
    return [
        Run(
            name,
            spent,
            0.0 if name == "start" else difference(sums_of(folder / name, data), expected),
        )
        for name, spent in seconds.items()
    ]


_WORDS = {
    "here": "one process, one thread, shard after shard",
    "at-once": "one process, a thread for each processor, one stream of images",
    "nodes": "three nodes with a processor each",
    "killed": "the same; a node is killed (SIGKILL) after a third of the shards, the command after two "
    "thirds, and given again with `--resume`",
}


def table(runs: list[Run], images: int, shards: int) -> str:
    """The block of the page."""
    by_name = {run.name: run for run in runs}
    alone = by_name["here"].seconds
    lines = [
        f"`python -m benchmarks.ray_analysis --write`: {images:,} test images of CIFAR-10 through {MODEL}, "
        f"all its pairs of layers, {shards} shards; {NODES} nodes on one machine with {cpu_count()} "
        f"processors of an {cpu_name()}, which other programs wanted too (Python "
        f"{platform.python_version()}, Ray {metadata.version('ray')}, torch {metadata.version('torch')}). "
        "Each is a command from its start to its end, once:",
        "",
        "| what | time | against one process | sums differ by |",
        "|---|---|---|---|",
    ]
    for name, words in _WORDS.items():
        if name not in by_name:
            continue
        run = by_name[name]
        told = "-" if name == "here" else _told(run.difference)
        lines.append(f"| {words} | {run.seconds:.0f} s | x{alone / run.seconds:.2f} | {told} |")
    start = by_name["start"].seconds
    lines += ["", f"The three nodes took {start:.0f} s to start, which is not in these times."]
    return "\n".join(lines)


def _told(value: float) -> str:
    return "nothing" if value == 0 else f"{value:.0e}"


def split(source: Path, folder: Path, images: int, rows: int) -> int:
    """Write the first ``images`` into files of ``rows``; how many files there are."""
    data: pa.Table = pq.read_table(find_files(source, "test")[0]).slice(0, images)
    folder.mkdir()
    starts = range(0, len(data), rows)
    for number, start in enumerate(starts):
        pq.write_table(data.slice(start, rows), folder / f"{number:03}.parquet")
    return len(starts)


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="CIFAR-10 in parquet")
    add("--images", type=int, default=10_000)
    add("--rows", type=int, default=500, help="images of a file, which is a shard")
    add("--at-once", action="store_true", help="also one process with all processors")
    add("--json", type=Path, metavar="FILE", help="write the figures there")
    add("--write", action="store_true", help="write the table into docs/cluster.md")
    add("--arm", choices=ARMS, help=argparse.SUPPRESS)
    add("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.arm:
        ARMS[args.arm](str(args.data), args.out)
        return 0
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        shards = split(args.data, data, args.images, args.rows)
        runs = measure(data, Path(name), shards, at_once=args.at_once)
    text = table(runs, args.images, shards)
    print(text)
    if args.json:
        figures = {run.name: {"seconds": run.seconds, "difference": run.difference} for run in runs}
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    if args.write:
        write_section(PAGE, "ray", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
