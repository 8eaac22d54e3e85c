"""`rootserve load`: puts a model under load and reports what came of it."""

import asyncio
import signal
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.catalog import Model, ServerInfo
from client.dataset import read_dataset
from client.errors import ServerError
from client.inference import Client
from client.load import LoadOptions, LoadResult, run_load
from client.load.objective import judge
from client.load.report import check_writable, to_json, write
from client.load.requests import POOL_SIZE
from client.progress import LoadProgress
from client.tables import console, print_load


class Outcome(Enum):
    """How a run ended."""

    DONE = "done"
    MISSED = "missed"
    INTERRUPTED = "interrupted"


def run(
    options: LoadOptions, data: Path | None, json_path: Path | None, slo_p99_s: float | None
) -> Outcome:
    """Run the load, print the figures and write the report.

    Raises:
        ServerError: Every single request was refused or failed, and no objective says more.
    """
    # All that can be wrong is found out before time is spent on measuring.
    if json_path:
        check_writable(json_path)
    return asyncio.run(_run(options, data, json_path, slo_p99_s))


async def _run(
    options: LoadOptions, data: Path | None, json_path: Path | None, slo_p99_s: float | None
) -> Outcome:
    info, model = await _describe(options)
    images = read_dataset(data, limit=POOL_SIZE * options.rows).images if data else None
    screen = console(stderr=True)
    with LoadProgress(screen, options.warmup_s + options.duration_s) as progress:
        result = await _interruptible(options, images, progress)
    screen = console()
    print_load(screen, result)
    if json_path:
        write(to_json(result, info, model), json_path)
        screen.print(f"report in {json_path}", markup=False, soft_wrap=True)
    if slo_p99_s is not None:
        verdict = judge(result, slo_p99_s)
        screen.print(verdict.text, style="green" if verdict.met else "bold red")
        if not verdict.met and not result.interrupted:
            return Outcome.MISSED
    if result.interrupted:
        return Outcome.INTERRUPTED
    if result.errors and not result.succeeded:
        code = max(result.errors, key=lambda code: result.errors[code])
        raise ServerError(code, f"none of the {result.requests:,} requests succeeded")
    return Outcome.DONE


async def _interruptible(
    options: LoadOptions, images: NDArray[np.uint8] | None, progress: LoadProgress
) -> LoadResult:
    """Run the load; the first Ctrl-C ends it early, a second one ends the program."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def interrupt() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        watch = progress.show if progress.is_shown else None
        return await run_load(options, images, stop=stop, watch=watch)
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _describe(options: LoadOptions) -> tuple[ServerInfo | None, Model | None]:
    """What the report tells of the server; nothing if it has no catalogue of ours."""
    async with Client(
        options.server, credentials=options.credentials, timeout_s=options.timeout_s
    ) as client:
        try:
            return await client.server_info(), await client.model(options.model)
        except ServerError as error:
            if error.code == "UNIMPLEMENTED":
                return None, None
            raise
