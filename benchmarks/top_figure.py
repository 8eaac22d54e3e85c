"""Draws docs/figures/top.svg: what `rootserve top` shows of a real server under load.

    python -m benchmarks.top_figure [SERVER]

SERVER is one that is under load; without it one is started here, and put under load.
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI

from rootserve.client.credentials import PLAINTEXT, Connection
from rootserve.client.errors import RootserveError
from rootserve.client.top.rates import compare
from rootserve.client.top.screen import render
from rootserve.client.top.source import Source

FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "top.svg"
MODELS = ("nin-orig", "nin-root-4", "nin-root-16")
"""Those with weights in the repository."""
SHOWN_AS = "127.0.0.1:8001"
INTERVAL_S = 5.0


@contextlib.contextmanager
def server_under_load() -> Iterator[str]:
    """The address of a server whose models each have callers."""
    command = [sys.executable, "-m", "rootserve.server", "--port", "0", "--metrics-port", "0"]
    command += ["--models", ",".join(MODELS)]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(server.terminate)
        assert server.stdout is not None
        found = re.search(r"grpc=(\S+)", server.stdout.readline())
        assert found, "the server did not start"
        wait_until_ready(found[1])
        for callers, model in zip((1, 4, 8), MODELS, strict=True):
            load = [
                sys.executable,
                "-m",
                "rootserve.client",
                "load",
                "-m",
                model,
                "-c",
                str(callers),
            ]
            load += ["--server", found[1], "--duration", "600"]
            process = stack.enter_context(
                subprocess.Popen(load, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            stack.callback(process.kill)
        time.sleep(8)  # until they have connected and warmed up
        yield found[1]


def wait_until_ready(server: str) -> None:
    """Wait until all models are served."""
    source = Source(Connection(server, PLAINTEXT), None)
    while True:
        with contextlib.suppress(RootserveError):
            if source.read().serving:
                return
        time.sleep(0.5)


def draw(server: str, shown_as: str) -> None:
    """Read the server twice and write the figure."""
    source = Source(Connection(server, PLAINTEXT), None)
    before = source.read()
    time.sleep(INTERVAL_S)
    view = compare(before, source.read())
    screen = Console(
        record=True, width=92, force_terminal=True, file=io.StringIO(), highlight=False
    )
    screen.print(render(shown_as, view))
    # Without the fonts that rich would have the reader's browser fetch.
    layout = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    screen.save_svg(str(FIGURE), title="rootserve top", theme=MONOKAI, code_format=layout)
    print(f"wrote {FIGURE}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        draw(sys.argv[1], sys.argv[1])
    else:
        with server_under_load() as address:
            draw(address, SHOWN_AS)
