"""`rootserve analyze profile` and `analyze filters`: single layers of a network, as tables and pictures."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rootserve.client.analysis import files
from rootserve.client.analysis.labels import last_layer
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
from rootserve.client.telling import telling

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

    with files.results_in(*([] if out is None else [out])):
        with telling(console(stderr=True), f"measuring {' and '.join(names)}"):
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

    async def call() -> tuple[Filters, Profile, Sequence[str]]:
        async with AsyncClient(connection.server, credentials=connection.credentials) as client:
            filters = await get_filters(client, model, layer)
            classes = (await client.model(model)).classes
            return filters, await get_profile(client, model), classes

    with files.results_in(out):
        filters, profile, classes = asyncio.run(call())
        # Imported where pictures are drawn: matplotlib takes a second.
        from rootserve.client.analysis.filters_figure import filters_figure  # noqa: PLC0415
        from rootserve.client.analysis.saving import save  # noqa: PLC0415

        name = filters.layer.name
        labels = classes if name == last_layer(profile, len(classes)) else ()
        with files.writing(out):
            np.save(out / f"filters-{name}.npy", filters.weights)
            figure = filters_figure(filters, *groups_behind(profile, filters.layer), labels=labels)
            save(figure, out, f"filters-{name}", style)
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


def groups_behind(profile: Profile, layer: Layer) -> tuple[int, str]:
    """Filter groups of the next layer with weights, and its name; 1 and "" if it has none.

    A dense layer mixes what all filters give: groups behind it say nothing of these filters.
    """
    names = [each.name for each in profile.layers]
    following = profile.layers[names.index(layer.name) + 1 :]
    reader = next((each for each in following if each.kind in COSTLY), None)
    if reader is None or reader.groups == 1 or layer.out_channels % reader.groups:
        return 1, ""
    return reader.groups, reader.name
