"""The arguments of `rootserve simulate` and `rootserve plan`."""

from pathlib import Path
from typing import Annotated

import typer

from rootserve.client.exit_codes import ExitCode

EXAMPLES = """\b
Examples:
  rootserve latency --json > latency.json
  rootserve simulate --latency latency.json -r 300x10,1200x10 --deadline-ms 100
  rootserve simulate --latency latency.json --replay trace.csv --policy rootserve,slackfit
  rootserve plan --latency latency.json --rate 2000 --p99-ms 50 --accuracy 0.90

"""

_LATENCY = typer.Option(
    metavar="FILE", help="How long batches take: what 'latency --json' of a live server wrote."
)
_JSON = typer.Option("--json", metavar="FILE", help="Write all figures there as JSON.")
_CV2 = typer.Option(
    metavar="V",
    help="How the requests come: the variance of their gaps over the square of the mean; 0 evenly, "
    "1 as of independent callers, more in bursts.",
)
_ROWS = typer.Option(metavar="N", help="Images per request.")
_SEED = typer.Option(metavar="N", min=0, help="The same one gives the same result.")


def simulate(  # noqa: PLR0913, PLR0917 - one per option of the command
    latency: Annotated[Path, _LATENCY],
    rate: Annotated[
        str | None,
        typer.Option(
            "--rate",
            "-r",
            metavar="R",
            help="R requests per second, a ramp 50..500, or steps 50x10,400x5 of so many seconds.",
        ),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Requests as in this CSV file, as 'load --replay' has it."
        ),
    ] = None,
    duration: Annotated[
        float, typer.Option("--duration", "-d", metavar="S", help="Simulated seconds.")
    ] = 10.0,
    cv2: Annotated[float, _CV2] = 1.0,
    deadline_ms: Annotated[
        str,
        typer.Option(metavar="MS", help="Of each request; weights make a mix: 50=2,100=1,none=1."),
    ] = "100",
    accuracy_floor: Annotated[
        str, typer.Option(metavar="A", help="The least accuracy of each answer, or a mix.")
    ] = "0",
    rows: Annotated[
        str, typer.Option(metavar="N", help="Images per request, or a mix: 1=9,16=1.")
    ] = "1",
    workers: Annotated[
        list[str] | None,
        typer.Option(metavar="[KIND=]N", help="Workers; once for each kind [default: 1]."),
    ] = None,
    policy: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="What chooses variants: rootserve, slackfit, max-acc, max-batch, greedy, min-accuracy, "
            "or 'static VARIANT'; several are compared on the same requests.",
        ),
    ] = "rootserve",
    seed: Annotated[int, _SEED] = 1,
    json_path: Annotated[Path | None, _JSON] = None,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the first policy over time: PNG, SVG or PDF."),
    ] = None,
) -> None:
    """Simulate the scheduler on a latency table: what would be in time, and with what accuracy.

    The scheduler is the server's own; workers and requests are computed. No server is asked.
    """
    from rootserve.client.commands.simulate import (  # noqa: PLC0415 - see the module of the command line
        Coming,
        Outputs,
    )
    from rootserve.client.commands.simulate import simulate as run  # noqa: PLC0415

    coming = Coming(
        rate=rate,
        replay=replay,
        duration_s=duration,
        cv2=cv2,
        deadline_ms=deadline_ms,
        accuracy_floor=accuracy_floor,
        rows=rows,
        seed=seed,
    )
    policies = [name.strip() for name in policy.split(",")]
    run(latency, coming, workers or [], policies, Outputs(json=json_path, figure=figure))


def plan(  # noqa: PLR0913, PLR0917 - one per option of the command
    latency: Annotated[Path, _LATENCY],
    rate: Annotated[
        float, typer.Option("--rate", "-r", metavar="R", help="Requests per second to hold.")
    ],
    p99_ms: Annotated[
        float,
        typer.Option("--p99-ms", metavar="MS", help="Within so long 99 of 100 are to be answered."),
    ],
    accuracy: Annotated[
        float, typer.Option(metavar="A", help="What the answers' accuracy is to be on average.")
    ] = 0.0,
    accuracy_floor: Annotated[
        float, typer.Option(metavar="A", help="The least accuracy of each answer.")
    ] = 0.0,
    rows: Annotated[int, _ROWS] = 1,
    cv2: Annotated[float, _CV2] = 1.0,
    workers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[KIND=]N[..M]", help="So many come into question [default: of every kind]."
        ),
    ] = None,
    seed: Annotated[int, _SEED] = 1,
    json_path: Annotated[Path | None, _JSON] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it there: PNG, SVG or PDF.")
    ] = None,
) -> None:
    """Tell how many workers hold a rate, with which variants, and by what margin.

    Simulated, as by 'simulate'. Exit code 1 if no number of workers holds it.
    """
    from rootserve.client.commands.simulate import Outputs, make_plan  # noqa: PLC0415
    from rootserve.client.simulation.planning import Need  # noqa: PLC0415

    need = Need(
        rate=rate, p99_s=p99_ms / 1e3, accuracy=accuracy, floor=accuracy_floor, rows=rows, cv2=cv2
    )
    held = make_plan(latency, need, workers or [], seed, Outputs(json=json_path, figure=figure))
    raise typer.Exit(ExitCode.OK if held else ExitCode.MISSED)
