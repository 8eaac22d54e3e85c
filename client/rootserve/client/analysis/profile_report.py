"""Profiles as tables that fit 80 columns, and as JSON."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from rootserve.client.analysis.layers import Layer, Measurement, Profile, Time
from rootserve.client.tables import figures_table
from rootserve.client.units import count, duration

COSTLY = ("conv", "linear")
"""Kinds of layers that have weights."""

_MEASURED = ("engine", "precision", "device", "threads", "rows", "runs")


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
    for words in dict.fromkeys(_time_words(each) for each in (profile, against) if each):
        if words:
            screen.print(escape(words), style="dim")


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
        "time_s": _times(layer.time),
        "computed_in": layer.computed_in,
        "measured": _measured(profile.measurement),
    }


def _times(time: Time | None) -> dict[str, float] | None:
    if time is None:
        return None
    return {
        "median": time.median_s,
        "lower_quartile": time.lower_quartile_s,
        "upper_quartile": time.upper_quartile_s,
    }


def _measured(measurement: Measurement | None) -> dict[str, Any] | None:
    if measurement is None:
        return None
    about = {key: getattr(measurement, key) for key in _MEASURED}
    return {**about, "total_s": _times(measurement.total), "other_s": _times(measurement.other)}


def _print_one(screen: Console, profile: Profile) -> None:
    screen.print(f"[bold]{escape(profile.model)}[/]")
    columns = ("layer", "size", "g", "channels", "map", "params", "MACs")
    table = figures_table(screen, *columns, *_time_column(profile, "time"))
    for layer in profile.layers:
        table.add_row(
            escape(layer.name),
            f"{layer.kernel}x{layer.kernel}" if layer.kind != "add" else "-",
            str(layer.groups) if layer.kind == "conv" else "-",
            f"{layer.in_channels}>{layer.out_channels}",
            f"{layer.height}x{layer.width}",
            _exactly(layer.params),
            _shortly(layer.macs),
            *_time_cell(profile, layer),
        )
    params, macs = _totals(profile)
    table.add_row("all", "", "", "", "", _exactly(params), _shortly(macs), *_total_time(profile))
    screen.print(table)
    words = "size: of the kernel; g: filter groups; map: height and width of the output"
    if any(layer.computed_in for layer in profile.layers):
        words += "\nwith: a part of the step of the convolution before it"
    screen.print(words, style="dim")


def _print_two(screen: Console, profile: Profile, against: Profile) -> None:
    """Only layers in which the two differ, and all of them together."""
    screen.print(f"[bold]{escape(profile.model)}[/] and [bold]{escape(against.model)}[/]")
    columns = [f"{name}{which}" for name in ("g", "params", "MACs") for which in ("", "'")]
    times = [*_time_column(profile, "time"), *_time_column(against, "time'")]
    table = figures_table(screen, "layer", *columns, *times)
    for layer, other in _differing(profile.layers, against.layers):
        both = (layer, other)
        table.add_row(
            escape(layer.name),
            *(str(each.groups) for each in both),
            *(_shortly(each.params) for each in both),
            *(_shortly(each.macs) for each in both),
            *_time_cell(profile, layer),
            *_time_cell(against, other),
        )
    totals = zip(_totals(profile), _totals(against), strict=True)
    cells = [_shortly(value) for pair in totals for value in pair]
    times = [*_total_time(profile), *_total_time(against)]
    table.add_row("all layers", "", "", *cells, *times)
    screen.print(table)
    screen.print(
        f"': {escape(against.model)}; g: filter groups; layers of the same cost are left out",
        style="dim",
    )


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


def _time_words(profile: Profile) -> str:
    if profile.no_times_reason:
        return f"no time of {profile.model}: {profile.no_times_reason}"
    return f"time: {measurement_words(profile.measurement)}" if profile.measurement else ""


def _time_column(profile: Profile, name: str) -> tuple[str, ...]:
    return (name,) if profile.measurement else ()


def _time_cell(profile: Profile, layer: Layer) -> tuple[str, ...]:
    if not profile.measurement:
        return ()
    if layer.time is None:
        return ("with" if layer.computed_in else "-",)
    return (duration(layer.time.median_s),)


def _totals(profile: Profile) -> tuple[int, int]:
    """Parameters and MACs of all layers."""
    return (
        sum(layer.params for layer in profile.layers),
        sum(layer.macs for layer in profile.layers),
    )


def _total_time(profile: Profile) -> tuple[str, ...]:
    return (duration(profile.measurement.total.median_s),) if profile.measurement else ()


def _exactly(value: int) -> str:
    return count(value) if value else "-"


def _shortly(value: int) -> str:
    """With three significant digits: "36.9 K", "118 M", "3.86 G"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= 0.9995 * size:
            return f"{value / size:#.3g}".rstrip(".") + f" {unit}"
    return str(value) if value else "-"
