"""The main job, end to end: serve, classify, load-test side by side, print the table, leave.

``make demo`` runs this. It starts ``rootserve-server`` on free ports of this machine's CPU, classifies
the 1,000 CIFAR-10 images of this folder over gRPC with each variant, loads the variants in turn
(A B C A B C ..., because a machine's speed drifts) and compares them by ratios within each round.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.table import Table

from rootserve.client.catalog import Model
from rootserve.client.dataset import read_dataset
from rootserve.client.evaluate import accuracy
from rootserve.client.images import read_image
from rootserve.client.inference import AsyncClient
from rootserve.client.load import LoadOptions, LoadResult, run_load

HERE = Path(__file__).parent
VARIANTS = ("nin-orig", "nin-root-4", "nin-root-16")
ROUNDS = 3
LOAD_S = 4.0
CALLERS = 4
IMAGES_PER_REQUEST = 4

# The table needs some 100 columns; a narrower terminal wraps it.
screen = Console(highlight=False, record=True, width=max(100, Console().width))
say = screen.print
# rich's own format fetches a web font; this one takes a font that is there.
SVG_FORMAT = CONSOLE_SVG_FORMAT.replace("Fira Code", "monospace")
SVG_FORMAT = re.sub(r"@font-face \{\{.*?\}\}", "", SVG_FORMAT, flags=re.DOTALL)


@dataclass
class Measured:
    """What the demo finds out about one variant; one load result per round."""

    model: Model
    accuracy: float
    loads: list[LoadResult] = field(default_factory=list)

    def median(self, figure: str) -> float:
        """Median over the rounds of a throughput, or of a response time such as ``p99``."""
        if figure == "rate":
            return statistics.median(load.throughput_rows_per_s for load in self.loads)
        return statistics.median(getattr(load.response_time_s, figure) for load in self.loads)


@contextmanager
def server() -> Iterator[str]:
    """A service on free ports, for as long as the block runs; gives its gRPC address."""
    command = [sys.executable, "-m", "rootserve.server", "--device", "cpu", "--port", "0"]
    command += ["--metrics-port", "0", "--models", ",".join(VARIANTS), "--log-level", "warning"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("listening grpc="):
            raise SystemExit(f"the service did not start (exit status {process.wait()})")
        yield line.split()[1].removeprefix("grpc=")
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


async def wait_serving(client: AsyncClient) -> None:
    """Wait until every variant is loaded and warm."""
    deadline = time.monotonic() + 120
    while await client.health() != "SERVING":
        if time.monotonic() > deadline:
            raise SystemExit("the service was not ready within 120 s")
        await asyncio.sleep(0.1)


async def classify_pictures(client: AsyncClient) -> None:
    """Show what the last variant sees in a few single pictures."""
    name = VARIANTS[-1]
    model = await client.model(name)
    for path in sorted((HERE / "images").glob("*.png")):
        image = read_image(path, model.image_size)
        answer = await client.infer(name, image[None], outputs=("probabilities",))
        assert answer.probabilities is not None
        best = int(answer.probabilities[0].argmax())
        say(f"  {path.name:14} {model.classes[best]:11} {answer.probabilities[0][best]:6.1%}")


async def measure(address: str) -> list[Measured]:
    """Accuracy of every variant, then rounds of load."""
    data = read_dataset(HERE / "cifar10-sample.parquet")
    async with AsyncClient(address) as client:
        began = time.monotonic()
        await wait_serving(client)
        say(f"[bold]ready[/] after {time.monotonic() - began:.1f} s of loading and warming up")
        info = await client.server_info()
        engine = (await client.model(VARIANTS[0])).engine
        precisions = sorted({str((await client.model(name)).precision) for name in VARIANTS})
        what = f"{engine} {info.libraries.get(engine or '', '')} in {' and '.join(precisions)}"
        say(f"{info.cpu}, {info.cpu_count} processors, {what}, rootserve {info.version}\n")
        say(f"[bold]a few pictures[/], as {VARIANTS[-1]} sees them")
        await classify_pictures(client)
        say(f"\n[bold]accuracy[/] on {len(data.labels):,} CIFAR-10 test images over gRPC")
        measured = []
        for name in VARIANTS:
            if not (await client.model(name)).trained:
                raise SystemExit(f"{name} has no trained weights: its figures would say nothing")
            share = await accuracy(client, name, data.images, data.labels)
            measured.append(Measured(await client.model(name), share))
            say(f"  {name:14} {share:6.1%}")
    callers = f"{CALLERS} callers, {IMAGES_PER_REQUEST} images per request"
    say(f"\n[bold]load[/]: {ROUNDS} rounds of {LOAD_S:g} s each, {callers}")
    for round_number in range(1, ROUNDS + 1):
        for one in measured:
            options = LoadOptions(
                model=one.model.name,
                server=address,
                concurrency=CALLERS,
                duration_s=LOAD_S,
                warmup_s=0.5,
                rows=IMAGES_PER_REQUEST,
            )
            result = await run_load(options, data.images)
            if result.errors or not result.succeeded:
                raise SystemExit(f"requests to {one.model.name} failed: {dict(result.errors)}")
            one.loads.append(result)
        rates = ", ".join(f"{one.loads[-1].throughput_rows_per_s:,.0f}" for one in measured)
        say(f"  round {round_number}: {rates} images/s")
    return measured


def ratio(one: Measured, orig: Measured) -> str:
    """Speed-up over orig: median of the rounds' ratios, and their range."""
    ratios = [
        mine.throughput_rows_per_s / theirs.throughput_rows_per_s
        for mine, theirs in zip(one.loads, orig.loads, strict=True)
    ]
    if one is orig:
        return "1"
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def table(measured: list[Measured]) -> Table:
    """The result, one row per variant."""
    made = Table(header_style="bold", box=None, pad_edge=False)
    made.add_column("variant")
    for column in (
        "params",
        "MACs",
        "accuracy",
        "images/s",
        "p50",
        "p99",
        "speed-up",
        "FLOPs ratio",
    ):
        made.add_column(column, justify="right", no_wrap=True)
    orig = measured[0]
    for one in measured:
        made.add_row(
            one.model.name,
            f"{one.model.params / 1e3:,.0f} k",
            f"{one.model.macs / 1e6:,.1f} M",
            f"{one.accuracy:.1%}",
            f"{one.median('rate'):,.0f}",
            f"{one.median('p50') * 1e3:.1f} ms",
            f"{one.median('p99') * 1e3:.1f} ms",
            ratio(one, orig),
            f"{orig.model.flops_paper / one.model.flops_paper:.2f}",
        )
    return made


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--svg", type=Path, metavar="FILE", help="also save the output as a picture"
    )
    args = parser.parse_args()
    say("[bold]starting[/] rootserve-server on the CPU")
    with server() as address:
        measured = asyncio.run(measure(address))
    say()
    say(table(measured))
    say()
    say("p50, p99: response time of a request. speed-up: images/s over those of nin-orig, median")
    say("of the rounds (range). FLOPs ratio: the speed-up that counting operations promises.")
    if args.svg:
        screen.save_svg(str(args.svg), title="make demo", code_format=SVG_FORMAT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
