"""`rootserve top`: a live view of what a server does, from its own metrics."""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live

from rootserve.client.credentials import Connection
from rootserve.client.errors import InputError, RootserveError
from rootserve.client.tables import console
from rootserve.client.top.rates import View, compare
from rootserve.client.top.sample import Sample
from rootserve.client.top.screen import render
from rootserve.client.top.source import Source


@dataclass(frozen=True, slots=True)
class TopOptions:
    """How to show it. `metrics` is HOST:PORT, None asks the server."""

    metrics: str | None = None
    interval_s: float = 2.0
    once: bool = False
    as_json: bool = False


def run(connection: Connection, options: TopOptions) -> None:
    """Show the view until Ctrl-C, or once.

    Raises:
        RootserveError: With `once`, the server cannot be read.
    """
    source = Source(connection, options.metrics)
    if options.once:
        before = source.read()
        time.sleep(options.interval_s)
        _print(console(), connection.server, compare(before, source.read()), "", options)
        return
    screen = console()
    try:
        if screen.is_terminal and not options.as_json:
            with Live(console=screen, screen=True, auto_refresh=False) as live:
                for view, trouble in _views(source, options.interval_s):
                    live.update(render(connection.server, view, trouble), refresh=True)
        else:
            for view, trouble in _views(source, options.interval_s):
                _print(screen, connection.server, None if trouble else view, trouble, options)
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        # Who read it has enough, as `head` has; the interpreter must not write what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _views(source: Source, interval_s: float) -> Iterator[tuple[View | None, str]]:
    """The latest view and what keeps the server from being read now, "" if nothing; for ever."""
    before: Sample | None = None
    view: View | None = None
    while True:
        trouble = ""
        began_s = time.monotonic()
        try:
            now = source.read()
        except InputError:
            raise
        except RootserveError as error:
            trouble = str(error)
        else:
            view = compare(before, now)
            before = now
        yield view, trouble
        time.sleep(max(0.0, interval_s - (time.monotonic() - began_s)))


def _print(
    screen: Console, server: str, view: View | None, trouble: str, options: TopOptions
) -> None:
    """One reading off a terminal: a line of JSON, or the tables under the time."""
    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if options.as_json:
        line = {"at": at, "server": server, "error": trouble or None}
        print(json.dumps(line | (view.to_json() if view else {})), flush=True)
    else:
        screen.print(at, style="dim")
        screen.print(render(server, view, trouble))
        screen.print()
