"""Several servers as one view: a row for each, and each model over all of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from rootserve.client.errors import InputError, RootserveError
from rootserve.client.top.rates import ModelRow, View, compare
from rootserve.client.top.sample import Sample
from rootserve.client.top.screen import figures, rate_text, share_text
from rootserve.client.top.source import Source
from rootserve.client.units import count, duration


@dataclass(frozen=True, slots=True)
class ServerView:
    """One server. With `trouble`, why it cannot be read now, `view` is the last that there was, if any."""

    server: str
    view: View | None
    trouble: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a line of one server alone."""
        line: dict[str, Any] = {"server": self.server, "error": self.trouble or None}
        return line | (self.view.to_json() if self.view and not self.trouble else {})


@dataclass(frozen=True, slots=True)
class FleetRow:
    """A model over all servers that can be read: sums, and of `p99_s` the worst."""

    model: str
    ready: int
    servers: int
    requests_per_s: float | None
    rows_per_s: float | None
    p99_s: float | None
    queued_rows: int
    in_flight_rows: int
    refused_per_s: float | None
    weights: Mapping[str, Sequence[str]]
    """Which servers have which weights live."""


class Fleet:
    """Reads several servers side by side, again and again."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources
        self._before: dict[str, Sample] = {}
        self._views: dict[str, View] = {}
        self._readers = ThreadPoolExecutor(len(sources))

    def read(self) -> list[ServerView]:
        """Every server as it is now.

        Raises:
            InputError: The address of one is none.
        """
        return list(self._readers.map(self._read, self._sources))

    def _read(self, server: str) -> ServerView:
        try:
            now = self._sources[server].read()
        except InputError:
            raise
        except RootserveError as error:
            return ServerView(server, self._views.get(server), str(error))
        view = self._views[server] = compare(self._before.get(server), now)
        self._before[server] = now
        return ServerView(server, view)


def models_of(servers: Iterable[ServerView]) -> list[FleetRow]:
    """Each model over all servers that can be read, in the order of the first that has it."""
    found: dict[str, list[tuple[str, ModelRow]]] = {}
    for one in servers:
        if one.view is not None and not one.trouble:
            for row in one.view.models:
                found.setdefault(row.model, []).append((one.server, row))
    return [_row(model, rows) for model, rows in found.items()]


def _row(model: str, rows: Sequence[tuple[str, ModelRow]]) -> FleetRow:
    weights: dict[str, list[str]] = {}
    for server, row in rows:
        weights.setdefault(row.weights, []).append(server)

    def total(of: Callable[[ModelRow], float | None]) -> float | None:
        known = [value for _, row in rows if (value := of(row)) is not None]
        return sum(known) if known else None

    return FleetRow(
        model=model,
        ready=sum(row.ready for _, row in rows),
        servers=len(rows),
        requests_per_s=total(lambda row: row.requests_per_s),
        rows_per_s=total(lambda row: row.rows_per_s),
        p99_s=max((row.p99_s for _, row in rows if row.p99_s is not None), default=None),
        queued_rows=sum(row.queued_rows for _, row in rows),
        in_flight_rows=sum(row.in_flight_rows for _, row in rows),
        refused_per_s=total(lambda row: row.refused_per_s),
        weights=weights,
    )


def render_fleet(servers: Sequence[ServerView]) -> RenderableType:
    """A table of the servers, one of the models, and what is wrong; 80 columns."""
    readable = [one for one in servers if one.view is not None and not one.trouble]
    serving = sum(one.view.serving for one in readable if one.view)
    parts: list[RenderableType] = [
        Text.assemble(
            (f"rootserve: {len(servers)} servers", "bold"),
            "  ",
            (f"{serving} serving", "green" if serving == len(servers) else "red"),
        ),
        "",
        _servers(servers),
        "",
    ]
    models = models_of(servers)
    parts += [_models(models), ""]
    for row in models:
        if len(row.weights) > 1:
            told = "; ".join(f"{name} on {', '.join(on)}" for name, on in row.weights.items())
            parts.append(Text(f"weights of {row.model} differ: {told}", style="yellow"))
    parts += [Text(f"{one.server}: {one.trouble}", style="red") for one in servers if one.trouble]
    parts.append(Text("p99 is that of the worst server, estimated from buckets", style="dim"))
    return Group(*parts)


def _servers(servers: Sequence[ServerView]) -> RenderableType:
    table = figures("", ("server", "state"), ("req/s", "rows/s", "p99", "queue", "busy", "ref/s"))
    for one in servers:
        if one.view is None or one.trouble:
            table.add_row(escape(one.server), "[red]unreachable[/]", *["-"] * 6)
            continue
        row = _row("", [(one.server, row) for row in one.view.models])
        busy = [worker.busy for worker in one.view.workers if worker.busy is not None]
        table.add_row(
            escape(one.server),
            "[green]serving[/]" if one.view.serving else "[red]not serving[/]",
            rate_text(row.requests_per_s),
            rate_text(row.rows_per_s),
            duration(row.p99_s),
            count(row.queued_rows),
            share_text(sum(busy) / len(busy) if busy else None),
            rate_text(row.refused_per_s, bad=True),
        )
    return table


def _models(rows: Sequence[FleetRow]) -> RenderableType:
    table = figures("", ("model",), ("ready", "req/s", "rows/s", "p99", "queue", "work", "ref/s"))
    for row in rows:
        all_ready = row.ready == row.servers
        ready = f"{row.ready}/{row.servers}"
        table.add_row(
            escape(row.model),
            ready if all_ready else f"[red]{ready}[/]",
            rate_text(row.requests_per_s),
            rate_text(row.rows_per_s),
            duration(row.p99_s),
            count(row.queued_rows),
            count(row.in_flight_rows),
            rate_text(row.refused_per_s, bad=True),
        )
    return table
