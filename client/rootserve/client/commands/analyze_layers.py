"""`rootserve analyze profile` and `analyze filters`: single layers of a network, as tables and pictures."""

import asyncio
import json
from pathlib import Path

import numpy as np

from rootserve.client.analysis import files
from rootserve.client.analysis.layers import (
    Filters,
    Layer,
    Profile,
    get_filters,
    get_profile,
    median_profile,
)
from rootserve.client.analysis.profile_report import COSTLY, print_profile, to_json
from rootserve.client.analysis.style import Style
from rootserve.client.credentials import Connection
from rootserve.client.errors import InputError
from rootserve.client.inference import AsyncClient
from rootserve.client.tables import console

_TURNS = 3
"""How often each of two models is measured, in turns."""


def run_profile(  # noqa: PLR0913 - one per option of the command
    connection: Connection,
    model: str,
    against: str | None,
    *,
    measure: bool,
    rows: int,
    out: Path | None,
    style: Style,
    as_json: bool,
) -> None:
    """Ask what the layers cost; print a table or JSON, and write JSON and a picture."""
    if out is not None:
        files.prepare_folder(out)
    names = [model] if against is None else [model, against]

    async def call() -> list[Profile]:
        async with AsyncClient(connection.server, credentials=connection.credentials) as client:
            if not measure:
                return [await get_profile(client, name) for name in names]
            # They take turns: what else the machine does concerns both.
            turns = [
                [await get_profile(client, name, measure=True, rows=rows) for name in names]
                for _ in range(1 if against is None else _TURNS)
            ]
            return [median_profile(own) for own in zip(*turns, strict=True)]

    screen = console(stderr=True)
    if screen.is_terminal and measure:
        with screen.status(f"measuring {' and '.join(names)}"):
            profiles = asyncio.run(call())
    else:
        profiles = asyncio.run(call())
    profile, *others = profiles
    other = others[0] if others else None
    if other is not None and not _costly(profile) & _costly(other):
        raise InputError(
            f"{model} and {against} have no layers of the same name: expected models of one family"
        )
    if out is not None:
        _write_profile(profile, other, out, style)
    if as_json:
        print(json.dumps(to_json(profile, other), indent=2))
        return
    print_profile(console(), profile, other)
    if out is not None:
        console().print(f"results in {out}", markup=False, soft_wrap=True)


def run_filters(connection: Connection, model: str, layer: str, out: Path, style: Style) -> None:
    """Ask for the filters of a convolution; write them and a picture of them."""
    files.prepare_folder(out)

    async def call() -> tuple[Filters, Profile]:
        async with AsyncClient(connection.server, credentials=connection.credentials) as client:
            return await get_filters(client, model, layer), await get_profile(client, model)

    filters, profile = asyncio.run(call())
    groups, groups_of = _groups_below(profile, filters.layer)
    # Imported where pictures are drawn: matplotlib takes a second.
    from rootserve.client.analysis.filters_figure import filters_figure  # noqa: PLC0415
    from rootserve.client.analysis.saving import save  # noqa: PLC0415

    name = filters.layer.name
    with files.writing(out):
        np.save(out / f"filters-{name}.npy", filters.weights)
        save(filters_figure(filters, groups, groups_of), out, f"filters-{name}", style)
    console().print(
        f"{filters.model}, {name}: {list(filters.weights.shape)} in {out}",
        markup=False,
        soft_wrap=True,
    )


def _write_profile(profile: Profile, other: Profile | None, out: Path, style: Style) -> None:
    # As above.
    from rootserve.client.analysis.profile_figure import profile_figure  # noqa: PLC0415
    from rootserve.client.analysis.saving import save  # noqa: PLC0415

    with files.writing(out):
        text = json.dumps(to_json(profile, other), indent=2)
        (out / "profile.json").write_text(text + "\n")
        save(profile_figure(profile, other), out, "profile", style)


def _costly(profile: Profile) -> set[str]:
    return {layer.name for layer in profile.layers if layer.kind in COSTLY}


def _groups_below(profile: Profile, layer: Layer) -> tuple[int, str]:
    """Filter groups of the first convolution after ``layer`` that has any, and its name; 1 if none has."""
    names = [each.name for each in profile.layers]
    for following in profile.layers[names.index(layer.name) + 1 :]:
        if following.kind == "conv" and following.groups > 1:
            fits = layer.out_channels % following.groups == 0
            return (following.groups, following.name) if fits else (1, "")
    return 1, ""
