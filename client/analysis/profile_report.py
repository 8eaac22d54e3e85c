"""Profiles as tables that fit 80 columns, and as JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from client.analysis.layers import Layer, Measurement, Profile
from client.tables import figures_table
from client.units import count, duration

COSTLY = ("conv", "linear")
"""Kinds of layers that have weights."""


def to_json(profile: Profile, against: Profile | None = None) -> list[dict[str, Any]]:
    """The layers, ready for `json.dumps`; with `against`, that model's layer of the same name in each."""
    others = {layer.name: layer for layer in against.layers} if against else {}
    rows = []
    for layer in profile.layers:
        row = _row(profile, layer)
        if against is not None:
            other = others.get(layer.name)
            row["against"] = None if other is None else _row(against, other)
        rows.append(row)
    return rows


def print_profile(screen: Console, profile: Profile, against: Profile | None = None) -> None:
    """A table of the layers with weights, and of the others' times together."""
    if against is None:
        _print_one(screen, profile)
    else:
        _print_two(screen, profile, against)
    for each in (profile, against):
        if each is not None:
            _print_measurement(screen, each)


def measurement_words(measurement: Measurement) -> str:
    """What measured, in a line."""
    threads = f", {measurement.threads} threads" if measurement.threads else ""
    images = "one image" if measurement.rows == 1 else f"batches of {measurement.rows} images"
    return (
        f"{measurement.engine} {measurement.precision} on {measurement.device}{threads}, {images}, "
        f"median of {measurement.runs} runs"
    )


def _row(profile: Profile, layer: Layer) -> dict[str, Any]:
    return {
        "model": profile.model,
        "layer": layer.name,
        "alias": layer.alias,
        "kind": layer.kind,
        "groups": layer.groups,
        "kernel": layer.kernel,
        "stride": layer.stride,
        "in": layer.in_channels,
        "out": layer.out_channels,
        "height": layer.height,
        "width": layer.width,
        "params": layer.params,
        "macs": layer.macs,
        "time": asdict(layer.time) if layer.time else None,
        "computed_in": layer.computed_in,
        "measurement": asdict(profile.measurement) if profile.measurement else None,
    }


def _print_one(screen: Console, profile: Profile) -> None:
    screen.print(f"[bold]{escape(profile.model)}[/]")
    table = figures_table(screen, "layer", "kernel", "groups", "channels", "map", "params", "MACs",
                          *_time_column(profile))  # fmt: skip
    for layer in profile.layers:
        table.add_row(
            escape(layer.name),
            f"{layer.kernel}x{layer.kernel}" if layer.kind != "add" else "-",
            str(layer.groups) if layer.kind == "conv" else "-",
            f"{layer.in_channels} > {layer.out_channels}",
            f"{layer.height}x{layer.width}",
            _number(layer.params),
            _millions(layer.macs),
            *_time_cell(profile, layer),
        )
    table.add_section()
    table.add_row("all", "", "", "", "", *_totals(profile), *_total_time(profile))
    screen.print(table)


def _print_two(screen: Console, profile: Profile, against: Profile) -> None:
    """Only layers in which the two differ, and all of them together."""
    screen.print(f"[bold]{escape(profile.model)}[/] and [bold]{escape(against.model)}[/]")
    columns = [f"{name}{which}" for name in ("groups", "params", "MACs") for which in ("", "'")]
    times = [
        f"time{which}"
        for which, each in (("", profile), ("'", against))
        for _ in _time_column(each)
    ]
    table = figures_table(screen, "layer", *columns, *times)
    for layer, other in _differing(profile.layers, against.layers):
        table.add_row(
            escape(layer.name),
            *(str(each.groups) for each in (layer, other)),
            *(_number(each.params) for each in (layer, other)),
            *(_millions(each.macs) for each in (layer, other)),
            *_time_cell(profile, layer),
            *_time_cell(against, other),
        )
    table.add_section()
    (params, macs), (other_params, other_macs) = _totals(profile), _totals(against)
    times = [*_total_time(profile), *_total_time(against)]
    table.add_row("all layers", "", "", params, other_params, macs, other_macs, *times)
    screen.print(table)
    screen.print(f"': {escape(against.model)}; layers of the same cost are left out", style="dim")


def _differing(layers: Sequence[Layer], others: Sequence[Layer]) -> Iterator[tuple[Layer, Layer]]:
    by_name = {other.name: other for other in others}
    for layer in layers:
        other = by_name.get(layer.name)
        if other and (layer.groups, layer.macs, layer.params) != (
            other.groups,
            other.macs,
            other.params,
        ):
            yield layer, other


def _print_measurement(screen: Console, profile: Profile) -> None:
    if profile.no_times_reason:
        screen.print(f"{escape(profile.model)}: {escape(profile.no_times_reason)}", style="yellow")
    elif profile.measurement:
        screen.print(f"time: {escape(measurement_words(profile.measurement))}", style="dim")


def _time_column(profile: Profile) -> tuple[str, ...]:
    return ("time",) if profile.measurement else ()


def _time_cell(profile: Profile, layer: Layer) -> tuple[str, ...]:
    if not profile.measurement:
        return ()
    if layer.time is None:
        return ("with ^",) if layer.computed_in else ("-",)
    return (duration(layer.time.median_s),)


def _totals(profile: Profile) -> tuple[str, str]:
    return (
        _number(sum(layer.params for layer in profile.layers)),
        _millions(sum(layer.macs for layer in profile.layers)),
    )


def _total_time(profile: Profile) -> tuple[str, ...]:
    return (duration(profile.measurement.total.median_s),) if profile.measurement else ()


def _number(value: int) -> str:
    return count(value) if value else "-"


def _millions(value: int) -> str:
    return f"{value / 1e6:,.1f} M" if value else "-"
