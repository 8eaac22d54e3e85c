"""`rootserve top`: a live view of what a server does, from its own metrics."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

from rich.console import Console
from rich.live import Live

from rootserve.client.credentials import Connection
from rootserve.client.errors import InputError, RootserveError, Unreachable
from rootserve.client.tables import console
from rootserve.client.top.fleet import Fleet, ServerView, render_fleet
from rootserve.client.top.rates import View, compare
from rootserve.client.top.sample import Sample
from rootserve.client.top.screen import render
from rootserve.client.top.source import Source

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TopOptions:
    """How to show it. `metrics` is HOST:PORT, None asks the server."""

    metrics: str | None = None
    interval_s: float = 2.0
    once: bool = False
    as_json: bool = False


def run(connection: Connection, options: TopOptions, servers: Sequence[str] = ()) -> None:
    """Show the view until Ctrl-C, or once: of the server of the connection, or of several `servers`.

    Raises:
        RootserveError: With `once`, the server cannot be read; of several, none can.
    """
    if len(servers) > 1:
        _run_fleet(connection, options, list(dict.fromkeys(servers)))
        return
    if servers:
        connection = replace(connection, server=servers[0])
    source = Source(connection, options.metrics)
    if options.once:
        before = source.read()
        time.sleep(options.interval_s)
        _print(console(), connection.server, compare(before, source.read()), "", options)
        return
    screen = console()
    with _until_stopped():
        if screen.is_terminal and not options.as_json:
            with Live(console=screen, screen=True, auto_refresh=False) as live:
                for view, trouble in _views(source, options.interval_s):
                    live.update(render(connection.server, view, trouble), refresh=True)
        else:
            for view, trouble in _views(source, options.interval_s):
                _print(screen, connection.server, None if trouble else view, trouble, options)


def _run_fleet(connection: Connection, options: TopOptions, servers: list[str]) -> None:
    if options.metrics is not None:
        raise InputError("--metrics: names one server's, and several servers came")
    fleet = Fleet({one: Source(replace(connection, server=one), None) for one in servers})
    if options.once:
        fleet.read()
        time.sleep(options.interval_s)
        views = fleet.read()
        if all(one.trouble for one in views):
            raise Unreachable(f"none of the servers can be read: {views[0].trouble}")
        _print_fleet(console(), views, options)
        return
    screen = console()
    with _until_stopped():
        if screen.is_terminal and not options.as_json:
            with Live(console=screen, screen=True, auto_refresh=False) as live:
                for views in _in_turn(fleet.read, options.interval_s):
                    live.update(render_fleet(views), refresh=True)
        else:
            for views in _in_turn(fleet.read, options.interval_s):
                _print_fleet(screen, views, options)


def _in_turn(read: Callable[[], T], interval_s: float) -> Iterator[T]:
    """What `read` gives, once in each interval; for ever."""
    while True:
        began_s = time.monotonic()
        yield read()
        time.sleep(max(0.0, interval_s - (time.monotonic() - began_s)))


def _print_fleet(screen: Console, views: Sequence[ServerView], options: TopOptions) -> None:
    """As `_print`, of several servers: a line of JSON has all of them."""
    if options.as_json:
        line = {"at": _now(), "servers": [one.to_json() for one in views]}
        print(json.dumps(line), flush=True)
    else:
        screen.print(_now(), style="dim")
        screen.print(render_fleet(views))


@contextlib.contextmanager
def _until_stopped() -> Iterator[None]:
    """Until Ctrl-C, or until nobody reads any more."""
    try:
        yield
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        # Who read it has enough, as `head` has; the interpreter must not write what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


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
    at = _now()
    if options.as_json:
        line = {"at": at, "server": server, "error": trouble or None}
        print(json.dumps(line | (view.to_json() if view else {})), flush=True)
    else:
        screen.print(at, style="dim")
        screen.print(render(server, view, trouble))
        screen.print()
