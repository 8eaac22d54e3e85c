"""Single layers in the words of the wire: their cost, their times, their filters."""

from __future__ import annotations

from collections.abc import Iterator

from rootmodels.cost import LayerCost
from rootmodels.layer import find_layer
from rootmodels.model_graph import layer_path
from rootserve.server.analysis import messages
from rootserve.server.models import ModelCard
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire.analysis_messages import CHUNK_BYTES
from rootserve.v1 import analysis_pb2 as pb


def find_convolution(card: ModelCard, name: str) -> LayerCost:
    """The convolution called ``name``, or by that path in the torch module; the first one for "".

    Raises:
        RefusalError: UNKNOWN_LAYER.
    """
    convolutions = [each for each in card.cost.layers if each.layer.kind == "conv"]
    if not name and convolutions:
        return convolutions[0]
    found = find_layer([each.layer for each in convolutions], name)
    if found is None:
        known = ", ".join(each.layer.name for each in convolutions) or "none"
        text = f"{card.name} has no convolution {name!r}; it has {known}"
        raise RefusalError(Reason.UNKNOWN_LAYER, text)
    return next(each for each in convolutions if each.layer is found)


def layer_profile(cost: LayerCost) -> pb.LayerProfile:
    """A layer and its cost, without times."""
    layer = cost.layer
    return pb.LayerProfile(
        name=layer.name,
        alias=layer.path if layer.path not in (layer.name, layer_path(layer.name)) else "",
        kind=layer.kind,
        groups=layer.groups,
        kernel=max(layer.kernels),
        stride=max(layer.strides),
        in_channels=layer.in_channels,
        out_channels=layer.out_channels,
        height=layer.sizes[0],
        width=layer.sizes[1],
        params=cost.params,
        macs=cost.macs,
    )


def add_times(response: pb.GetProfileResponse, times: messages.Profiled) -> None:
    """Add what was measured to the layers of ``response``; who measured it is the caller's to add."""
    for layer in response.layers:
        if layer.name in times.layers:
            layer.time.CopyFrom(_time(times.layers[layer.name]))
        layer.computed_in = times.computed_in.get(layer.name, "")
    response.measurement.runs = times.runs
    response.measurement.total.CopyFrom(_time(times.total))
    response.measurement.other.CopyFrom(_time(times.other))


def filter_chunks(weights: bytes) -> Iterator[pb.FiltersChunk]:
    """``weights`` in pieces."""
    for offset in range(0, len(weights), CHUNK_BYTES):
        yield pb.FiltersChunk(offset=offset, data=weights[offset : offset + CHUNK_BYTES])


def _time(quartiles: tuple[int, int, int]) -> pb.LayerTime:
    lower, median, upper = quartiles
    return pb.LayerTime(lower_quartile_ns=lower, median_ns=median, upper_quartile_ns=upper)
