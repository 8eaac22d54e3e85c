"""The dashboard's figures as two pictures in docs/figures: ``python -m benchmarks.dashboard_figure``.

A real server is loaded in phases, a real Prometheus (Debian: ``apt-get install prometheus``) scrapes it and
applies the rules, and the queries of the committed dashboard are drawn with matplotlib.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from tritonclient.grpc import service_pb2_grpc

from benchmarks.panel_drawing import BACKGROUND, DPI, EDGE, KINDS, PANEL, TEXT, Answer, dates, empty
from tests.support.prometheus import (
    INSTALLED,
    MISSING,
    Prometheus,
    dashboard_rows_and_panels,
    plain,
    running_prometheus,
)
from tests.support.server_process import ServerProcess, infer_request, plain_images, running_server

MODELS = {"nin-orig": 0.25, "nin-root-4": 0.35, "nin-root-16": 0.4}
"""Share of the requests."""
WINDOW = "5s"
UNIT_IN = (0.64, 0.4)
"""Width and height of Grafana's grid unit, inches."""
ABOVE_IN = 0.36
MARGINS_IN = {
    "timeseries": (0.75, 0.62),
    "stat": (0.15, 0.1),
    "table": (0.15, 0.1),
    "bargauge": (0.15, 0.1),
    "xychart": (1.0, 0.5),
}
"""Left of what a panel draws and below it, inches."""
PATIENCE_S = 30.0
OVER_TIME = {"timeseries", "heatmap", "state-timeline"}
SECOND_PICTURE = "Workers and devices"
"""The row with which it begins."""
OUT = Path(__file__).parents[1] / "docs" / "figures"
Panels = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the load."""

    seconds: float
    requests_per_s: float
    most_rows: int = 1
    deadline_s: float = PATIENCE_S
    kills_a_worker: bool = False


PHASES = (
    Phase(35, 60),
    Phase(35, 120, most_rows=2),
    Phase(12, 700, most_rows=2, deadline_s=0.25),
    Phase(20, 60),
    Phase(38, 90, kills_a_worker=True),
)
SERVER = (
    "--device",
    "cpu",
    "--models",
    ",".join(MODELS),
    "--cpu-workers",
    "2",
    "--max-queue-rows",
    "64",
)


async def load(server: ServerProcess, phases: tuple[Phase, ...]) -> None:
    """An open loop: requests leave at random instants, whatever becomes of earlier ones."""
    chance = random.Random(1)
    requests = {
        (model, rows): infer_request(model, plain_images(rows))
        for model in MODELS
        for rows in (1, 2)
    }
    pending: set[asyncio.Task[None]] = set()
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        async def ask(model: str, rows: int, deadline_s: float) -> None:
            with contextlib.suppress(grpc.RpcError):
                await stub.ModelInfer(requests[model, rows], timeout=deadline_s)

        due_s = time.monotonic()
        for phase in phases:
            if phase.kills_a_worker:
                os.kill(server.worker_pids()[-1], signal.SIGKILL)
            end_s = due_s + phase.seconds
            while due_s < end_s:
                due_s += chance.expovariate(phase.requests_per_s)
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                (model,) = chance.choices(list(MODELS), list(MODELS.values()))
                rows = chance.randint(1, phase.most_rows)
                task = asyncio.ensure_future(ask(model, rows, phase.deadline_s))
                pending.add(task)
                task.add_done_callback(pending.discard)
        await asyncio.gather(*pending)


def answers(
    prometheus: Prometheus, panel: Mapping[str, Any], began_s: float, ended_s: float
) -> list[Answer]:
    """What the queries of a panel give, as it asks for them."""
    found = []
    for target in panel["targets"]:
        query = plain(target["expr"], WINDOW)
        if target.get("instant"):
            series = prometheus.query(query)
        else:
            series = prometheus.range(query, began_s, ended_s, 1.0)
        found.append(Answer(target["legendFormat"], series))
    return found


def draw(panels: Panels, found: Mapping[int, list[Answer]]) -> Figure:
    """Panels at their places; ``found`` has the answers to their queries by the panel's id."""
    first = min(panel["gridPos"]["y"] for panel in panels)
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) - first
    height_in = height * UNIT_IN[1]
    figure = Figure((24 * UNIT_IN[0], height_in), dpi=DPI, facecolor=BACKGROUND)
    for panel in panels:
        place = panel["gridPos"]
        x, y = place["x"] / 24, 1 - (place["y"] - first) / height
        w, h = place["w"] / 24, place["h"] / height
        if panel["type"] == "row":
            text = f"⌄  {panel['title']}"
            figure.text(0.006, y - 0.65 * h, text, color=TEXT, fontsize=11, weight="bold")
            continue
        _frame(figure, x + 0.002, y - h + 0.0006, w - 0.004, h - 0.0012)
        title_y = y - 0.2 / height_in
        figure.text(x + 0.008, title_y, panel["title"], color=TEXT, fontsize=8.5, va="center")
        left, below = MARGINS_IN.get(panel["type"], (0.75, 0.45))
        axes = figure.add_axes(
            (
                x + left / (24 * UNIT_IN[0]),
                y - h + below / height_in,
                w - (left + 0.2) / (24 * UNIT_IN[0]),
                h - (below + ABOVE_IN) / height_in,
            ),
            facecolor=PANEL,
        )
        for side in axes.spines.values():
            side.set_visible(False)
        if any(answer.series for answer in found[panel["id"]]):
            KINDS[panel["type"]](axes, panel, found[panel["id"]])
            if panel["type"] in OVER_TIME:
                axes.set_xlim(*time_span(found))
        else:
            empty(axes, panel["fieldConfig"]["defaults"]["noValue"])
    return figure


def time_span(found: Mapping[int, list[Answer]]) -> tuple[float, float]:
    """The first and the last instant of all panels, as matplotlib's dates."""
    times = [
        float(t)
        for answers_of_panel in found.values()
        for answer in answers_of_panel
        for one in answer.series
        for t, _ in one.get("values", ())
    ]
    first, last = dates([min(times), max(times)])
    return first, last


def _frame(figure: Figure, x: float, y: float, w: float, h: float) -> None:
    frame = FancyBboxPatch(
        (x, y),
        w,
        h,
        boxstyle="square,pad=0",
        transform=figure.transFigure,
        facecolor=PANEL,
        edgecolor=EDGE,
        zorder=-1,
    )
    figure.patches.append(frame)


def main() -> int:
    """Load, scrape, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the pictures")
    parser.add_argument("--speed", type=float, default=1.0, help="shortens every phase")
    options = parser.parse_args()
    if not INSTALLED:
        print(MISSING, file=sys.stderr)
        return 1
    mpl.use("agg")
    phases = tuple(replace(phase, seconds=phase.seconds / options.speed) for phase in PHASES)
    panels = dashboard_rows_and_panels()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(*SERVER) as server,
        running_prometheus(server.metrics_address, Path(folder), interval_s=1.0) as prometheus,
    ):
        time.sleep(3)
        began_s = time.time()
        asyncio.run(load(server, phases))
        ended_s = time.time()
        found = {
            panel["id"]: answers(prometheus, panel, began_s, ended_s)
            for panel in panels
            if panel["type"] != "row"
        }
    second = [panel["title"] for panel in panels].index(SECOND_PICTURE)
    for name, part in (("service", panels[:second]), ("fleet", panels[second:])):
        path = options.out / f"dashboard-{name}.png"
        draw(part, found).savefig(path, dpi=DPI)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
