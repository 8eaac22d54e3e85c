"""The arguments of `rootserve load`: what they are called, and what is known of them."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from rootserve.client.credentials import Connection
from rootserve.client.defaults import (
    DURATION_S,
    MAX_IN_FLIGHT,
    MAX_TRIALS,
    ROUNDS,
    TIMEOUT_S,
    WARMUP_S,
)
from rootserve.client.exit_codes import ExitCode

EXAMPLES = """\b
Examples:
  rootserve load -m nin-root-4 -c 1:64:x2 --html sweep.html
  rootserve load -m nin-root-4 -r 200 --slo-p99-ms 50
  rootserve load -m nin-root-4 --slo-p99-ms 50 --find-max
  rootserve load -m nin-auto -r 200 --deadline-ms 50=3,200=7 --slo-attainment 0.99
  rootserve load -m nin-orig -c 8 --versus nin-root-4

"""

_LOAD = "The load (one of the first three)"
_REQUESTS = "The requests"
_MEASURE = "What to measure"
_OUTPUT = "What to write"


def _option(section: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=section, **settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was written on the command line; None where nothing was."""

    concurrency: Annotated[
        str | None,
        _option(
            _LOAD,
            "--concurrency",
            "-c",
            metavar="C",
            help="Closed loop: C callers, each sending again when its last answer came. "
            "A list 1,2,4 or a range 1:64:x2 makes a sweep.",
        ),
    ] = None
    rate: Annotated[
        str | None,
        _option(
            _LOAD,
            "--rate",
            "-r",
            metavar="R",
            help="Open loop: R requests per second, whether or not earlier ones were answered. "
            "A list or range makes a sweep, 50..500 a ramp, 50x10,400x5 steps of so many seconds.",
        ),
    ] = None
    replay: Annotated[
        Path | None,
        _option(
            _LOAD,
            metavar="FILE",
            help="Open loop: departures as in this CSV file (at_s, and if wanted model, rows, "
            "priority, deadline_ms, accuracy_floor, variants).",
        ),
    ] = None
    distribution: Annotated[
        str | None,
        _option(
            _LOAD,
            "--distribution",
            metavar="poisson|constant",
            help="Spread of the departures of --rate [default: poisson].",
        ),
    ] = None
    max_in_flight: Annotated[
        int | None,
        _option(
            _LOAD,
            metavar="N",
            help="Open loop: most requests under way at once; later ones wait, and their waiting "
            f"counts [default: {MAX_IN_FLIGHT}].",
        ),
    ] = None
    processes: Annotated[
        int,
        _option(
            _LOAD, metavar="N", help="Client processes that share the load, if one is too slow."
        ),
    ] = 1
    model: Annotated[
        list[str] | None,
        _option(
            _REQUESTS,
            "--model",
            "-m",
            metavar="NAME[=WEIGHT]",
            help="Model to ask; give several, each with its weight, to mix them. See 'models' "
            "[default: the one that is served, if it is one].",
        ),
    ] = None
    rows: Annotated[
        str,
        _option(
            _REQUESTS,
            metavar="N",
            help="Images per request: 4, or 1,8,32 or 1:32 in equal parts, or 1=70,8=30.",
        ),
    ] = "1"
    data: Annotated[
        Path | None,
        _option(
            _REQUESTS,
            metavar="PATH",
            help="Take the images from this parquet file or folder (columns img and label) "
            "[default: random images].",
        ),
    ] = None
    deadline_ms: Annotated[
        str | None,
        _option(
            _REQUESTS,
            metavar="X",
            help="Deadline each request tells the server: 100, or a mix like 50=3,200=7 ('none' is "
            "no deadline).",
        ),
    ] = None
    accuracy_floor: Annotated[
        str | None,
        _option(
            _REQUESTS,
            metavar="A",
            help="Of a family asked as one model (NAME-auto): the least accuracy, 0 to 1, of what may "
            "answer; a mix like --rows, such as 0=1,0.89=1.",
        ),
    ] = None
    variants: Annotated[
        str | None,
        _option(
            _REQUESTS,
            metavar="NAMES",
            help="Of such a family: the variants that may answer, separated by commas.",
        ),
    ] = None
    priority: Annotated[
        str | None,
        _option(
            _REQUESTS,
            metavar="P",
            help="Priority of the requests, 1 is the highest; a mix like --rows.",
        ),
    ] = None
    streaming: Annotated[
        bool, _option(_REQUESTS, "--streaming", help="Send over streams (ModelStreamInfer).")
    ] = False
    timeout_s: Annotated[
        float, _option(_REQUESTS, metavar="S", help="Give each request up after this long.")
    ] = TIMEOUT_S
    seed: Annotated[
        int, _option(_REQUESTS, metavar="N", help="Seed of random images, mixes and departures.")
    ] = 0
    duration: Annotated[
        float | None,
        _option(
            _MEASURE,
            "--duration",
            "-d",
            metavar="S",
            help=f"Seconds to measure [default: {DURATION_S:g}, or as long as the steps or the replay].",
        ),
    ] = None
    warmup: Annotated[
        float | None,
        _option(
            _MEASURE,
            metavar="S",
            help=f"Seconds of load before that, counted nowhere [default: {WARMUP_S:g}, with --replay 0].",
        ),
    ] = None
    stable: Annotated[
        float | None,
        _option(
            _MEASURE,
            metavar="PCT",
            help="Measure windows of --duration until throughput and p99 of three in a row lie "
            "within PCT percent of their mean, and report those three.",
        ),
    ] = None
    max_trials: Annotated[
        int | None,
        _option(
            _MEASURE, metavar="N", help=f"The most windows to measure then [default: {MAX_TRIALS}]."
        ),
    ] = None
    slo_p99_ms: Annotated[
        float | None,
        _option(
            _MEASURE,
            metavar="X",
            help="Objective: 99 of 100 requests answered within X ms of being due. "
            "Missing it gives exit code 1.",
        ),
    ] = None
    slo_attainment: Annotated[
        float | None,
        _option(
            _MEASURE,
            metavar="SHARE",
            help="Objective: this share of the requests, such as 0.99, answered within their "
            "--deadline-ms of being due. Missing it gives exit code 1.",
        ),
    ] = None
    find_max: Annotated[
        bool,
        _option(
            _MEASURE,
            "--find-max",
            help="Search for the highest rate that holds --slo-p99-ms, --slo-attainment or both, from "
            "--rate if given.",
        ),
    ] = False
    versus: Annotated[
        str | None,
        _option(
            _MEASURE,
            metavar="MODEL[@HOST:PORT]",
            help="Compare with this model or server (or @HOST:PORT) in runs that take turns, A B A B.",
        ),
    ] = None
    rounds: Annotated[
        int | None,
        _option(_MEASURE, metavar="N", help=f"Runs of each with --versus [default: {ROUNDS}]."),
    ] = None
    json_path: Annotated[
        Path | None,
        _option(_OUTPUT, "--json", metavar="FILE", help="The report (docs/load.md explains it)."),
    ] = None
    html_path: Annotated[
        Path | None,
        _option(_OUTPUT, "--html", metavar="FILE", help="The report as one page with pictures."),
    ] = None
    csv_path: Annotated[
        Path | None, _option(_OUTPUT, "--csv", metavar="FILE", help="One row for each run.")
    ] = None


def load(*, connection: Connection, **written: Any) -> None:
    """Put models under load and measure them: rates, times, failures.

    Give one of --concurrency, --rate and --replay. The response time runs from the instant a
    request was due, the service time from its sending. --server may name several servers,
    separated by commas, to be asked in turn. Ctrl-C ends the run early and still reports.
    """
    # Imported here, so that the help need not wait for numpy and gRPC.
    from rootserve.client.commands.load import Outcome, Outputs, run  # noqa: PLC0415
    from rootserve.client.commands.measurement import measurement_of  # noqa: PLC0415

    asked = Asked(**written)
    outputs = Outputs(json=asked.json_path, html=asked.html_path, csv=asked.csv_path)
    outcome = run(measurement_of(asked, connection), asked.data, outputs)
    codes = {
        Outcome.DONE: ExitCode.OK,
        Outcome.MISSED: ExitCode.MISSED,
        Outcome.INTERRUPTED: ExitCode.INTERRUPTED,
    }
    raise typer.Exit(codes[outcome])


# Typer builds the command line from this.
load.__signature__ = inspect.signature(Asked)  # type: ignore[attr-defined]
