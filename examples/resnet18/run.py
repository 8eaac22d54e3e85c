"""A network that is not this project's own, all the way: torchvision's resnet18, on CIFAR-10.

    python examples/resnet18/run.py --data DIR --out out

imports the network, trains it, derives variants in filter groups, trains those with the original as their
teacher, measures all, serves them beside one another, and asks the service for their table and for the
covariance of their responses. Every command is printed before it runs; what it leaves is in ``--out``. There
are no pretrained weights in this: the network begins with random ones, as torchvision makes them.

``--quick`` does all that with a handful of images: it shows that the way can be gone, and nothing else.
"""

from __future__ import annotations

import argparse
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rootmodels import cifar10_facts as cifar10
from rootserve.pictures.parquet import find_files

HERE = Path(__file__).parent
NAME = "r18"
TOPOLOGY, LAYERS = "root", "*.conv1"
"""The first convolution of each block is in groups; the second one, which stays whole, mixes them."""

PAIR = "conv1-layer1.0.conv1"
"""The first convolution in groups, and the one whose responses it takes."""

PROGRAMS = {
    "python": [sys.executable],
    "rootserve": [sys.executable, "-m", "rootserve.client"],
}
_READY_S = 300


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done.

    ``degrees`` of the variants; images to ``train`` and to ``test``, those of a ``batch``, and those whose
    responses are ``analysed``; ``epochs`` of the original, ``more`` of each variant; ``rounds`` of the table.
    """

    degrees: tuple[int, ...]
    train: int
    test: int
    epochs: int
    more: int
    batch: int
    rounds: int
    analysed: int


FULL = Size((4, 16), train=10_000, test=2_000, epochs=4, more=1, batch=500, rounds=5, analysed=1000)
QUICK = Size((16,), train=48, test=32, epochs=1, more=1, batch=16, rounds=1, analysed=32)


def run(out: Path, command: str) -> None:
    """Print ``command``, and run it in ``out``.

    Raises:
        SystemExit: if it fails.
    """
    print(f"\n$ {command}", flush=True)
    words = shlex.split(command)
    began = time.monotonic()
    done = subprocess.run([*PROGRAMS[words[0]], *words[1:]], cwd=out, check=False)
    if done.returncode:
        raise SystemExit(f"error: this ended with exit status {done.returncode}: {command}")
    print(f"# {time.monotonic() - began:.0f} s", flush=True)


def prepare(data: Path, out: Path, size: Size) -> None:
    """Put the first images of each set into ``out``, and the names of the classes."""
    (out / "data").mkdir(parents=True, exist_ok=True)
    for split, count in (("train", size.train), ("test", size.test)):
        rows = pa.concat_tables(pq.read_table(file) for file in find_files(data, split)).slice(
            0, count
        )
        pq.write_table(rows, out / f"data/{split}-00000-of-00001.parquet")
        print(f"{split}: {len(rows):,} images of {data}")
    (out / "classes.txt").write_text("".join(f"{name}\n" for name in cifar10.CLASSES))


def make(out: Path, size: Size) -> None:
    """From torchvision's network to trained files: ``untrained/``, then ``weights/``."""
    mean, std = (
        ",".join(f"{each / 255:.3f}" for each in values) for values in (cifar10.MEAN, cifar10.STD)
    )
    variants = [f"{NAME}-{TOPOLOGY}-{degree}" for degree in size.degrees]
    numbers = f"batch_size={size.batch} small_share=0"
    run(
        out,
        f"python -m rootmodels import torchvision:resnet18 --name {NAME} --image-size {cifar10.SIDE} "
        f"--mean {mean} --std {std} --classes classes.txt --out untrained",
    )
    run(
        out,
        f"python -m rootmodels.train {NAME} --weights untrained --data data --out weights --work work "
        f"--precision fp32 --epochs {size.epochs} --set {numbers} vector_lr=0.05",
    )
    run(
        out,
        f"python -m rootmodels root weights/{NAME}.safetensors --topology {TOPOLOGY} --degree "
        f"{','.join(map(str, size.degrees))} --layers '{LAYERS}' --out untrained",
    )
    run(
        out,
        f"python -m rootmodels.train {' '.join(variants)} --weights untrained --data data --out weights "
        f"--work work --precision fp32 --recipe taught --teacher weights/{NAME}.safetensors "
        f"--epochs {size.more} --set {numbers} muon_lr=0.02 vector_lr=0.02 averaging=0",
    )
    run(out, "python -m rootmodels verify --weights weights --data data")
    run(out, "python -m rootserve.server.calibrate --weights weights --data data")


@contextmanager
def server(out: Path) -> Iterator[str]:
    """A service with what is in ``weights``, for as long as the block runs; gives its gRPC address."""
    command = (
        "rootserve-server --weights weights --precision fp32 --device cpu --port 0 --metrics-port 0"
    )
    print(f"\n$ {command}", flush=True)
    arguments = [sys.executable, "-m", "rootserve.server", *shlex.split(command)[1:]]
    arguments += ["--log-level", "warning"]
    process = subprocess.Popen(arguments, cwd=out, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("listening grpc="):
            raise SystemExit(f"the service did not start (exit status {process.wait()})")
        print(line, end="", flush=True)
        yield line.split()[1].removeprefix("grpc=")
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def ask(out: Path, size: Size, address: str) -> None:
    """What a running service tells of the networks."""
    at = f"--server {address}"
    picture = shlex.quote(str((HERE.parent / "images/frog.png").resolve()))
    largest = f"{NAME}-{TOPOLOGY}-{size.degrees[-1]}"
    run(out, f"rootserve health --wait {_READY_S} {at}")
    run(out, f"rootserve models {at}")
    for name in (NAME, largest):
        run(out, f"rootserve infer {picture} --model {name} {at}")
    run(
        out,
        f"rootserve table8 --family {NAME} --data data --rounds {size.rounds} --markdown table8.md "
        f"--figure table8.png {at}",
    )
    for name in (NAME, largest):
        run(
            out,
            f"rootserve analyze covariance --model {name} --pairs {PAIR} "
            f"--data data --images {size.analysed} --out covariance/{name} --groups {size.degrees[-1]} {at}",
        )


def main() -> int:
    """Go the whole way; the exit status tells whether it could be gone."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="CIFAR-10 in parquet")
    add("--out", type=Path, required=True, metavar="DIR", help="where all goes")
    add("--quick", action="store_true", help="few images, to see that it works")
    add("--images", type=int, help=f"images to train on (default: {FULL.train})")
    add("--epochs", type=int, help=f"of the original (default: {FULL.epochs})")
    args = parser.parse_args()
    size = QUICK if args.quick else FULL
    size = replace(size, train=args.images or size.train, epochs=args.epochs or size.epochs)
    began = time.monotonic()
    prepare(args.data, args.out, size)
    make(args.out, size)
    with server(args.out) as address:
        ask(args.out, size, address)
    minutes = (time.monotonic() - began) / 60
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = (used.ru_utime + used.ru_stime) / 60
    print(f"\nall of it in {minutes:.1f} minutes, {processor:.1f} minutes of processor time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
