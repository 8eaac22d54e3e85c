"""Which layer's channels are the classes: those of the layer that gives the logits."""

from dataclasses import replace

from rootserve.client.analysis.layers import Profile, get_profile
from rootserve.client.analysis.profile_report import COSTLY
from rootserve.client.analysis.results import Analysis
from rootserve.client.inference import AsyncClient


async def labelled(client: AsyncClient, analysis: Analysis) -> Analysis:
    """The analysis, in which the layer that gives the logits has the names of the classes.

    Raises:
        ServerError: The server refused or failed.
    """
    classes = (await client.model(analysis.model)).classes
    if all(layer.channels != len(classes) for layer in analysis.layers.values()):
        return analysis
    name = last_layer(await get_profile(client, analysis.model), len(classes))
    if name not in analysis.layers:
        return analysis
    last = replace(analysis.layers[name], labels=tuple(classes))
    return replace(analysis, layers={**analysis.layers, name: last})


def last_layer(profile: Profile, classes: int) -> str:
    """The layer behind which there are no weights, if it has a channel for each class; else ""."""
    last = [layer for layer in profile.layers if layer.kind in COSTLY][-1:]
    return last[0].name if last and last[0].out_channels == classes else ""
