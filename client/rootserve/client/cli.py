"""The command line `rootserve`: its arguments, its errors and its exit codes.

Only the arguments are here; what a command does is in `rootserve.client.commands`, imported when it runs,
so that `rootserve --help` need not wait for numpy and gRPC.
"""

import errno
import gc
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from rootserve.client.arguments import AsJson, ModelPatterns
from rootserve.client.cli_analyze import app as analyze_app
from rootserve.client.cli_control import CONTROL_COMMANDS
from rootserve.client.cli_infer import infer
from rootserve.client.cli_scheduling import explain, latency
from rootserve.client.commands.load_arguments import EXAMPLES, load
from rootserve.client.commands.simulate_arguments import EXAMPLES as SIMULATIONS
from rootserve.client.commands.simulate_arguments import plan, simulate
from rootserve.client.connecting import connecting
from rootserve.client.credentials import Connection
from rootserve.client.errors import (
    InputError,
    Interrupted,
    MalformedAnswer,
    RootserveError,
    ServerError,
    Unreachable,
)
from rootserve.client.exit_codes import ExitCode
from rootserve.client.help import CommandGroup, SectionedCommand

_EXIT_CODES: dict[type[RootserveError], ExitCode] = {
    InputError: ExitCode.USAGE,
    Unreachable: ExitCode.SERVER,
    ServerError: ExitCode.SERVER,
    MalformedAnswer: ExitCode.SERVER,
    Interrupted: ExitCode.INTERRUPTED,
}
_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
# Newer versions of typer bring their own click; this finds the base of all usage errors in both.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]

_EPILOG = """\b
Exit codes:
  0    done
  1    objective missed, not judged or held by none; not serving (health);
       or files left out (analyze --ray)
  2    wrong usage or input, or output that cannot be written
  3    server unreachable, or it refused or failed
  70   a fault of rootserve itself
  130  interrupted
"""

app = typer.Typer(
    name="rootserve",
    cls=CommandGroup,
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
        from rootserve.client.version import client_version  # noqa: PLC0415 - see the module's text

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
    from rootserve.client.commands.health import run  # noqa: PLC0415 - see the module's text

    raise typer.Exit(ExitCode.OK if run(connection, model) else ExitCode.MISSED)


@app.command()
@connecting
def models(
    weights: Annotated[
        bool, typer.Option("--weights", help="Tell which weights of each are live.")
    ] = False,
    as_json: AsJson = False,
    *,
    connection: Connection,
) -> None:
    """List all models: cost, accuracy, engine and state."""
    from rootserve.client.commands.models import run  # noqa: PLC0415 - see the module's text

    run(connection, weights=weights, as_json=as_json)


for _name, _command in CONTROL_COMMANDS.items():
    app.command(name=_name)(connecting(_command))


app.command()(connecting(infer))
app.command()(connecting(latency))
app.command()(connecting(explain))
app.command(epilog=EXAMPLES + _EPILOG, cls=SectionedCommand)(connecting(load))


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="A report of 'load --json'.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="Another one.")],
    as_json: AsJson = False,
) -> None:
    """Compare two load reports: B over A, with an interval where the reports tell one."""
    from rootserve.client.commands.compare import run  # noqa: PLC0415 - see the module's text

    run(a, b, as_json=as_json)


@app.command()
def report(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE.json", help="What 'load --json' or 'choose --json' wrote."),
    ],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one self-contained page there.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one row per run there.")
    ] = None,
) -> None:
    """Make a page or CSV of a saved report. Asks no server."""
    from rootserve.client.commands.report import run  # noqa: PLC0415 - see the module's text

    run(file, html, csv)


@app.command()
@connecting
def table8(  # noqa: PLR0913, PLR0917 - one per option of the command
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Measure the accuracy on all images of this parquet file or folder "
            "(columns img and label) [default: what the server's catalogue tells].",
        ),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Whose variants [default: the first the server lists]."),
    ] = None,
    models: ModelPatterns = "*",
    rounds: Annotated[
        int, typer.Option(metavar="N", help="How often each variant has its turn.")
    ] = 7,
    rows: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Images per batch [default: as many as in the paper, or the server's limit].",
        ),
    ] = None,
    merge: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Add the other device's column from its JSON."),
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the rows there as JSON.")
    ] = None,
    markdown_path: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write the table there.")
    ] = None,
    figure_path: Annotated[
        Path | None,
        typer.Option("--figure", metavar="FILE", help="Draw it there: PNG, SVG or PDF."),
    ] = None,
    *,
    connection: Connection,
) -> None:
    """Measure the paper's table of a family anew: FLOPs, accuracy and time of each variant served.

    Times are the server's own, of forward passes over large batches; the variants take turns. On
    a server with GPUs they fill the GPU column.
    """
    from rootserve.client.commands.table8 import Outputs, run  # noqa: PLC0415 - see the module's text
    from rootserve.client.table8.measure import Plan  # noqa: PLC0415

    outputs = Outputs(json=json_path, markdown=markdown_path, figure=figure_path)
    plan = Plan(family=family, models=models, rounds=rounds, rows=rows)
    run(connection, outputs, plan, data=data, merge=merge)


@app.command()
@connecting
def choose(  # noqa: PLR0913, PLR0917 - one per option of the command
    slo_p99_ms: Annotated[
        float,
        typer.Option("--slo-p99-ms", metavar="MS", help="The 99th percentile that is to be held."),
    ],
    rate: Annotated[
        float | None,
        typer.Option("--rate", "-r", metavar="R", help="Requests per second that are to be held."),
    ] = None,
    models: ModelPatterns = "*",
    rows: Annotated[int, typer.Option(metavar="N", help="Images per request.")] = 1,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Measure the accuracy on images of this parquet file or folder "
            "(columns img and label) [default: what the server's catalogue tells].",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(metavar="M", help="End by then [default: 1 for each variant, 9 at most]."),
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there as JSON.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with a picture there.")
    ] = None,
    *,
    connection: Connection,
) -> None:
    """Tell which variant to take: accuracy against the highest rate that holds an objective.

    The variants take turns, a run of 'load --find-max' each. Exit code 1 if none holds --rate.
    """
    from rootserve.client.choice.plan import Plan  # noqa: PLC0415 - see the module's text
    from rootserve.client.commands.choose import Outputs, run  # noqa: PLC0415

    plan = Plan(p99_s=slo_p99_ms / 1e3, rate=rate, models=models, rows=rows, minutes=minutes)
    held = run(connection, Outputs(json=json_path, html=html), plan, data)
    raise typer.Exit(ExitCode.OK if held else ExitCode.MISSED)


@app.command()
def data(
    name: Annotated[str, typer.Argument(metavar="NAME", help="cifar10.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="What --data is given then.")
    ],
) -> None:
    """Fetch a data set, unless it is there.

    From the Hugging Face hub, which takes the extra 'data'. Where there is no network, it says which files
    to bring.
    """
    from rootserve.client.commands.data import run  # noqa: PLC0415 - see the module's text

    run(name, out)


for command in (simulate, plan):
    app.command(epilog=SIMULATIONS + _EPILOG)(command)


@app.command()
@connecting
def top(
    servers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[HOST:PORT...]", help="Watch these servers together [default: --server]."
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where the server's /metrics are [default: the server's host, and the port it tells].",
        ),
    ] = None,
    interval: Annotated[
        float, typer.Option(metavar="S", help="Seconds between two readings.", min=0.1)
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Show one interval and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON per interval.")
    ] = False,
    *,
    connection: Connection,
) -> None:
    """Watch a server, or several: rate, latency, batches and queue of each model, and the workers.

    The figures are those of its metrics; p50 and p99 are estimates from histogram buckets. Ctrl-C
    ends it.
    """
    from rootserve.client.commands.top import TopOptions, run  # noqa: PLC0415 - see the module's text

    run(connection, TopOptions(metrics, interval, once, as_json), servers or ())


def main() -> None:
    """Entry point of `rootserve`. Expected failures give one line on standard error."""
    # gRPC's core writes of failed handshakes there by itself.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        code = _run()
        # Here and not at the interpreter's end, where a full disk would be a traceback.
        sys.stdout.flush()
    except BrokenPipeError:
        code = _without_output(ExitCode.PIPE)
    except Exception as error:  # noqa: BLE001 - whatever it is, 1 would mean something else
        if isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is None:
            _complain(f"the output cannot be written ({error.strerror})")
            code = _without_output(ExitCode.USAGE)
        else:
            traceback.print_exc()
            _complain("a fault of rootserve itself; please report it with the lines above")
            code = ExitCode.FAULT
    if code == ExitCode.SERVER:
        # An error's traceback keeps its channel, and gRPC ends two seconds later with a TLS channel.
        gc.collect()
    sys.exit(code)


def _run() -> int:
    try:
        return int(app(prog_name="rootserve", standalone_mode=False) or ExitCode.OK)
    except _USAGE_ERROR as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "rootserve"
        message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
        # As everywhere else, and not in the words of the library that checks types.
        message = message.replace("Value error, ", "").replace("Input should be", "expected")
        _complain(f"{message.removesuffix('.')} (see '{command} --help')")
        return ExitCode.USAGE
    except RootserveError as error:
        _complain(str(error))
        return _EXIT_CODES[type(error)]
    except (KeyboardInterrupt, typer.Abort):
        _complain("interrupted")
        return ExitCode.INTERRUPTED


def _without_output(code: ExitCode) -> ExitCode:
    """The code, and nothing more is written to where nothing can be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _complain(text: str) -> None:
    # Whatever words a server sends, an error stays one line.
    print(f"rootserve: {' '.join(text.split())}", file=sys.stderr)


if __name__ == "__main__":
    main()
