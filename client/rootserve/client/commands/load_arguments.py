"""The arguments of `rootserve load`: what they are called, and what they make of a measurement."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rootserve.client.commands.load_usage import check_the_load, check_the_measure
from rootserve.client.credentials import Connection
from rootserve.client.errors import InputError
from rootserve.client.exit_codes import ExitCode

EXAMPLES = """\b
Examples:
  rootserve load -m nin-root-4 -c 1:64:x2 --html sweep.html
  rootserve load -m nin-root-4 -r 200 --slo-p99-ms 50
  rootserve load -m nin-root-4 --slo-p99-ms 50 --find-max
  rootserve load -m nin-orig -c 8 --versus nin-root-4

"""

_LOAD = "The load (one of the first three)"
_REQUESTS = "The requests"
_MEASURE = "What to measure"
_OUTPUT = "What to write"


def _option(section: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=section, **settings)


Models = Annotated[
    list[str] | None,
    _option(
        _REQUESTS,
        "--model",
        "-m",
        metavar="NAME[=WEIGHT]",
        help="Model to ask; give several, each with its weight, to mix them. See 'models' "
        "[default: the one that is served, if it is one].",
    ),
]
Concurrency = Annotated[
    str | None,
    _option(
        _LOAD,
        "--concurrency",
        "-c",
        metavar="C",
        help="Closed loop: C callers, each sending again when its last answer came. "
        "A list 1,2,4 or a range 1:64:x2 makes a sweep.",
    ),
]
Rate = Annotated[
    str | None,
    _option(
        _LOAD,
        "--rate",
        "-r",
        metavar="R",
        help="Open loop: R requests per second, whether or not earlier ones were answered. "
        "A list or range makes a sweep, 50..500 a ramp, 50x10,400x5 steps of so many seconds.",
    ),
]
Replay = Annotated[
    Path | None,
    _option(
        _LOAD,
        metavar="FILE",
        help="Open loop: departures as in this CSV file (at_s, and if wanted model, rows, "
        "priority, deadline_ms).",
    ),
]
Spread = Annotated[
    str | None,
    _option(
        _LOAD,
        "--distribution",
        metavar="poisson|constant",
        help="Spread of the departures of --rate [default: poisson].",
    ),
]
MaxInFlight = Annotated[
    int | None,
    _option(
        _LOAD,
        metavar="N",
        help="Open loop: most requests under way at once; later ones wait, and their waiting "
        "counts [default: 1024].",
    ),
]
Processes = Annotated[
    int,
    _option(_LOAD, metavar="N", help="Client processes that share the load, if one is too slow."),
]
Rows = Annotated[
    str,
    _option(
        _REQUESTS,
        metavar="N",
        help="Images per request: 4, or 1,8,32 or 1:32 in equal parts, or 1=70,8=30.",
    ),
]
Data = Annotated[
    Path | None,
    _option(
        _REQUESTS,
        metavar="PATH",
        help="Take the images from this parquet file or folder (columns img and label) "
        "[default: random images].",
    ),
]
DeadlineMs = Annotated[
    str | None,
    _option(
        _REQUESTS, metavar="X", help="Deadline each request tells the server; a mix like --rows."
    ),
]
Priority = Annotated[
    str | None,
    _option(
        _REQUESTS,
        metavar="P",
        help="Priority of the requests, 1 is the highest; a mix like --rows.",
    ),
]
Streaming = Annotated[
    bool, _option(_REQUESTS, "--streaming", help="Send over streams (ModelStreamInfer).")
]
TimeoutS = Annotated[
    float, _option(_REQUESTS, metavar="S", help="Give each request up after this long.")
]
Seed = Annotated[
    int, _option(_REQUESTS, metavar="N", help="Seed of random images, mixes and departures.")
]
Duration = Annotated[
    float | None,
    _option(
        _MEASURE,
        "--duration",
        "-d",
        metavar="S",
        help="Seconds to measure [default: 10, or as long as the steps or the replay].",
    ),
]
Warmup = Annotated[
    float | None,
    _option(
        _MEASURE,
        metavar="S",
        help="Seconds of load before that, counted nowhere [default: 2, with --replay 0].",
    ),
]
Stable = Annotated[
    float | None,
    _option(
        _MEASURE,
        metavar="PCT",
        help="Measure windows of --duration until throughput and p99 of three in a row lie "
        "within PCT percent of their mean, and report those three.",
    ),
]
MaxTrials = Annotated[
    int | None,
    _option(_MEASURE, metavar="N", help="The most windows to measure then [default: 10]."),
]
SloP99Ms = Annotated[
    float | None,
    _option(
        _MEASURE,
        metavar="X",
        help="Objective: 99 of 100 requests answered within X ms of being due. "
        "Missing it gives exit code 1.",
    ),
]
FindMax = Annotated[
    bool,
    _option(
        _MEASURE,
        "--find-max",
        help="Search for the highest rate that holds --slo-p99-ms, from --rate if given.",
    ),
]
Versus = Annotated[
    str | None,
    _option(
        _MEASURE,
        metavar="MODEL[@HOST:PORT]",
        help="Compare with this model or server (or @HOST:PORT) in runs that take turns, A B A B.",
    ),
]
Rounds = Annotated[
    int | None,
    _option(_MEASURE, metavar="N", help="Runs of each with --versus [default: 5]."),
]
JsonFile = Annotated[
    Path | None,
    _option(_OUTPUT, "--json", metavar="FILE", help="The report (docs/load.md explains it)."),
]
HtmlFile = Annotated[
    Path | None,
    _option(_OUTPUT, "--html", metavar="FILE", help="The report as one page with pictures."),
]
CsvFile = Annotated[
    Path | None, _option(_OUTPUT, "--csv", metavar="FILE", help="One row for each run.")
]


def load(  # noqa: PLR0913 - one per option of the command
    concurrency: Concurrency = None,
    rate: Rate = None,
    replay: Replay = None,
    distribution: Spread = None,
    max_in_flight: MaxInFlight = None,
    processes: Processes = 1,
    *,
    model: Models = None,
    rows: Rows = "1",
    data: Data = None,
    deadline_ms: DeadlineMs = None,
    priority: Priority = None,
    streaming: Streaming = False,
    timeout_s: TimeoutS = 30.0,
    seed: Seed = 0,
    duration: Duration = None,
    warmup: Warmup = None,
    stable: Stable = None,
    max_trials: MaxTrials = None,
    slo_p99_ms: SloP99Ms = None,
    find_max: FindMax = False,
    versus: Versus = None,
    rounds: Rounds = None,
    json_path: JsonFile = None,
    html_path: HtmlFile = None,
    csv_path: CsvFile = None,
    connection: Connection,
) -> None:
    """Put models under load and measure them: rates, times, failures.

    Give one of --concurrency, --rate and --replay. The response time runs from the instant a
    request was due, the service time from its sending. --server may name several servers,
    separated by commas, to be asked in turn. Ctrl-C ends the run early and still reports.
    """
    # Imported here, so that the help need not wait for numpy and gRPC.
    from rootserve.client.commands.load import Measurement, Outcome, Outputs, run  # noqa: PLC0415
    from rootserve.client.commands.only_model import only_model  # noqa: PLC0415
    from rootserve.client.load import specify  # noqa: PLC0415
    from rootserve.client.load.arrivals import Distribution  # noqa: PLC0415
    from rootserve.client.load.options import LoadOptions  # noqa: PLC0415

    check_the_load(concurrency, rate, replay, distribution, max_in_flight, find_max=find_max)
    check_the_measure(max_trials, stable, slo_p99_ms, find_max, versus, rounds)
    if find_max and rate is None:
        # Where the search begins is found out by callers.
        loads: list[specify.Load] = [(max(16, processes), None)]
    else:
        loads = specify.loads_of(concurrency, rate, replay)
    if find_max and not all(isinstance(arrivals, float | None) for _, arrivals in loads):
        raise InputError(f"--find-max with --rate {rate}: expected a steady rate to begin with")
    if len(loads) > 1 and (find_max or versus):
        raise InputError(
            "a sweep together with --find-max or --versus: expected one --concurrency or --rate"
        )
    asked = specify.models_of(model or [only_model(connection)])
    levels = []
    for callers, arrivals in loads:
        duration_s, warmup_s = specify.times_of(arrivals, duration, warmup)
        levels.append(
            LoadOptions(
                model=asked,
                server=connection.server,
                credentials=connection.credentials,
                concurrency=callers,
                rate=arrivals,
                distribution=Distribution(distribution or Distribution.POISSON),
                duration_s=duration_s,
                warmup_s=warmup_s,
                rows=specify.integers_of("--rows", rows),
                seed=seed,
                deadline_s=None if deadline_ms is None else specify.deadlines_of(deadline_ms),
                timeout_s=timeout_s,
                priority=None if priority is None else specify.integers_of("--priority", priority),
                max_in_flight=1024 if max_in_flight is None else max_in_flight,
                streaming=streaming,
                processes=processes,
                stable_within=None if stable is None else stable / 100,
                max_trials=10 if max_trials is None else max_trials,
            )
        )
    measurement = Measurement(
        levels=tuple(levels),
        versus=None if versus is None else specify.other_side(levels[0], versus),
        rounds=5 if rounds is None else rounds,
        slo_p99_s=None if slo_p99_ms is None else slo_p99_ms / 1000,
        find_max=find_max,
        command=shlex.join(["rootserve", *sys.argv[1:]]),
    )
    outcome = run(measurement, data, Outputs(json=json_path, html=html_path, csv=csv_path))
    codes = {
        Outcome.DONE: ExitCode.OK,
        Outcome.MISSED: ExitCode.MISSED,
        Outcome.INTERRUPTED: ExitCode.INTERRUPTED,
    }
    raise typer.Exit(codes[outcome])
