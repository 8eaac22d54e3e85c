"""The command line `rootserve`: its arguments, its errors and its exit codes.

Only the arguments are here; what a command does is in `client.commands`, imported when it runs,
so that `rootserve --help` need not wait for numpy and gRPC.
"""

import gc
import os
import sys
from enum import IntEnum
from pathlib import Path
from typing import Annotated

import typer

from client.arguments import AsJson, ModelName
from client.cli_analyze import app as analyze_app
from client.connecting import connecting
from client.credentials import Connection
from client.errors import (
    InputError,
    Interrupted,
    MalformedAnswer,
    RootserveError,
    ServerError,
    Unreachable,
)


class ExitCode(IntEnum):
    """What the shell is told. `rootserve --help` explains them."""

    OK = 0
    MISSED = 1
    USAGE = 2
    SERVER = 3
    INTERRUPTED = 130


_EXIT_CODES: dict[type[RootserveError], ExitCode] = {
    InputError: ExitCode.USAGE,
    Unreachable: ExitCode.SERVER,
    ServerError: ExitCode.SERVER,
    MalformedAnswer: ExitCode.SERVER,
    Interrupted: ExitCode.INTERRUPTED,
}
# Newer versions of typer bring their own click; this finds the base of all usage errors in both.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]

_EPILOG = """\b
Exit codes:
  0    done
  1    objective missed (load), or not serving (health)
  2    wrong usage or input
  3    server unreachable, or it refused or failed
  130  interrupted
"""

app = typer.Typer(
    name="rootserve",
    help="Ask a Rootserve server: what it serves, what it sees in pictures, how fast it is.",
    epilog=_EPILOG,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help starts in half the time and reads the same in a file.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(analyze_app, name="analyze")


def _print_version(wanted: bool) -> None:
    if wanted:
        from client.version import client_version  # noqa: PLC0415 - see the module's text

        print(f"rootserve {client_version()}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _rootserve(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None and not version:
        typer.echo(context.get_help())
        raise typer.Exit(ExitCode.USAGE)


@app.command()
@connecting
def health(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Ask about this model alone.")
    ] = None,
    *,
    connection: Connection,
) -> None:
    """Tell what is serving, and if not, why."""
    from client.commands.health import run  # noqa: PLC0415 - see the module's text

    raise typer.Exit(ExitCode.OK if run(connection, model) else ExitCode.MISSED)


@app.command()
@connecting
def models(as_json: AsJson = False, *, connection: Connection) -> None:
    """List all models: cost, accuracy, engine and state."""
    from client.commands.models import run  # noqa: PLC0415 - see the module's text

    run(connection, as_json=as_json)


@app.command()
@connecting
def infer(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Pictures of any size and format.")
    ],
    model: ModelName,
    top: Annotated[int, typer.Option(min=1, help="How many classes to name per picture.")] = 5,
    as_json: AsJson = False,
    *,
    connection: Connection,
) -> None:
    """Classify pictures, all in one request.

    Of each the centred square is taken and resized to what the model wants.
    """
    from client.commands.infer import run  # noqa: PLC0415 - see the module's text

    run(connection, images, model, top, as_json=as_json)


@app.command(epilog=_EPILOG)
@connecting
def load(  # noqa: PLR0913, PLR0917 - one per option of the command
    model: ModelName,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            "-c",
            metavar="C",
            help="Closed loop: C callers, each sending again when its last answer came.",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            "-r",
            metavar="R",
            help="Open loop: R requests per second, whether or not earlier ones were answered.",
        ),
    ] = None,
    distribution: Annotated[
        str | None,
        typer.Option(
            metavar="poisson|constant",
            help="Spread of the open loop's departures [default: poisson].",
        ),
    ] = None,
    duration: Annotated[
        float, typer.Option("--duration", "-d", metavar="S", help="Seconds to measure.")
    ] = 10.0,
    warmup: Annotated[
        float, typer.Option(metavar="S", help="Seconds of load before that, counted nowhere.")
    ] = 2.0,
    rows: Annotated[int, typer.Option(metavar="N", help="Images per request.")] = 1,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Take the images from this parquet file or folder "
            "(columns img and label) [default: random images].",
        ),
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report there.")
    ] = None,
    slo_p99_ms: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Objective: 99 of 100 requests answered within X ms of "
            "being due. Missing it gives exit code 1.",
        ),
    ] = None,
    deadline_ms: Annotated[
        float | None, typer.Option(metavar="X", help="Deadline each request tells the server.")
    ] = None,
    priority: Annotated[
        int | None, typer.Option(metavar="P", help="Priority of the requests; 1 is the highest.")
    ] = None,
    max_in_flight: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Open loop: most requests under way at once; later ones "
            "wait, and their waiting counts [default: 1024].",
        ),
    ] = None,
    timeout_s: Annotated[
        float, typer.Option(metavar="S", help="Give each request up after this long.")
    ] = 30.0,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed of random images and departures.")
    ] = 0,
    *,
    connection: Connection,
) -> None:
    """Put a model under load and measure it: rates, times, failures.

    Give either --concurrency or --rate. The response time runs from the instant a request was
    due, the service time from its sending. Ctrl-C ends the run early and still reports.
    """
    from client.commands.load import Outcome, run  # noqa: PLC0415 - see the module's text
    from client.load.options import Distribution, LoadOptions  # noqa: PLC0415

    _check_load_usage(concurrency, rate, distribution, max_in_flight, slo_p99_ms)
    options = LoadOptions(
        model=model,
        server=connection.server,
        credentials=connection.credentials,
        concurrency=concurrency,
        rate=rate,
        distribution=Distribution(distribution or Distribution.POISSON),
        duration_s=duration,
        warmup_s=warmup,
        rows=rows,
        seed=seed,
        deadline_s=None if deadline_ms is None else deadline_ms / 1000,
        timeout_s=timeout_s,
        priority=priority,
        max_in_flight=1024 if max_in_flight is None else max_in_flight,
    )
    outcome = run(options, data, json_path, None if slo_p99_ms is None else slo_p99_ms / 1000)
    codes = {
        Outcome.DONE: ExitCode.OK,
        Outcome.MISSED: ExitCode.MISSED,
        Outcome.INTERRUPTED: ExitCode.INTERRUPTED,
    }
    raise typer.Exit(codes[outcome])


def _check_load_usage(
    concurrency: int | None,
    rate: float | None,
    distribution: str | None,
    max_in_flight: int | None,
    slo_p99_ms: float | None,
) -> None:
    if concurrency is None and rate is None:
        raise InputError(
            "neither --concurrency nor --rate: expected --concurrency C for a closed loop "
            "or --rate R for an open one"
        )
    if concurrency is not None and rate is not None:
        raise InputError("both --concurrency and --rate: expected one of them")
    for option, value in (("--distribution", distribution), ("--max-in-flight", max_in_flight)):
        if value is not None and rate is None:
            raise InputError(f"{option} without --rate: it shapes the open loop only")
    if distribution not in {None, "poisson", "constant"}:
        raise InputError(f"--distribution {distribution}: expected poisson or constant")
    if slo_p99_ms is not None and not 0 < slo_p99_ms < float("inf"):
        raise InputError(f"--slo-p99-ms {slo_p99_ms:g}: expected more than 0")


def main() -> None:
    """Entry point of `rootserve`. Expected failures give one line on standard error."""
    # gRPC's core writes of failed handshakes there by itself.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        code = app(prog_name="rootserve", standalone_mode=False)
    except _USAGE_ERROR as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "rootserve"
        message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
        _complain(f"{message.removesuffix('.')} (see '{command} --help')")
        code = ExitCode.USAGE
    except RootserveError as error:
        _complain(str(error))
        code = _EXIT_CODES[type(error)]
    except (KeyboardInterrupt, typer.Abort):
        _complain("interrupted")
        code = ExitCode.INTERRUPTED
    if code == ExitCode.SERVER:
        # An error's traceback keeps its channel, and gRPC ends two seconds later with a TLS channel.
        gc.collect()
    sys.exit(code)


def _complain(text: str) -> None:
    # Whatever words a server sends, an error stays one line.
    print(f"rootserve: {' '.join(text.split())}", file=sys.stderr)


if __name__ == "__main__":
    main()
