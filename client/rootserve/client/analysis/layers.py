"""Calls for single layers: what each one costs and takes, and the filters of a convolution."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rootserve.client.channel import translated_errors
from rootserve.client.errors import MalformedAnswer
from rootserve.client.inference import AsyncClient
from rootserve.v1 import analysis_pb2 as pb
from rootserve.v1 import analysis_pb2_grpc

MEASURE_TIMEOUT_S = 600.0
"""Measuring waits while inference runs: for minutes, on a busy server."""

_NS = 1e-9


@dataclass(frozen=True, slots=True)
class Time:
    """Seconds that something took for a whole batch: median and quartiles of several runs."""

    median_s: float
    lower_quartile_s: float
    upper_quartile_s: float


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer and its cost for one image. Fields as in `rootserve.v1.LayerProfile`.

    `time` is None when nothing was measured, and for a layer computed as a part of another one:
    `computed_in` then names that one.
    """

    name: str
    alias: str | None
    kind: str
    groups: int
    kernel: int
    stride: int
    in_channels: int
    out_channels: int
    height: int
    width: int
    params: int
    macs: int
    time: Time | None
    computed_in: str | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """How times were measured. Fields as in `rootserve.v1.TimeMeasurement`."""

    engine: str
    precision: str
    device: str
    threads: int
    rows: int
    runs: int
    total: Time
    other: Time


@dataclass(frozen=True, slots=True)
class Profile:
    """The layers of a model, in the order they run.

    `measurement` is None when nothing was measured; `no_times_reason` is then why, if it was asked for.
    """

    model: str
    layers: Sequence[Layer]
    measurement: Measurement | None
    no_times_reason: str | None


@dataclass(frozen=True, slots=True)
class Filters:
    """The weights of a convolution, float32 [out, in / groups, kernel, kernel], as the engines have them.

    `weights_sha256` is empty for a model without trained weights.
    """

    model: str
    layer: Layer
    weights_sha256: str
    weights: NDArray[np.float32]


async def get_profile(
    client: AsyncClient, model: str, *, measure: bool = False, rows: int = 1
) -> Profile:
    """Ask what the layers of a model cost, and how long the server takes for each.

    Args:
        client: Of a connected server.
        model: A model that the server knows, served or not.
        measure: Whether to measure times, which takes seconds, and waits while inference runs.
        rows: Images of the batch that is measured.

    Raises:
        ServerError: The server refused or failed.
    """
    request = pb.GetProfileRequest(model=model, measure=measure, rows=rows)
    timeout_s = MEASURE_TIMEOUT_S if measure else client.timeout_s
    with translated_errors():
        response = await _stub(client).GetProfile(request, timeout=timeout_s)
    return Profile(
        response.model,
        tuple(_layer(layer) for layer in response.layers),
        _measurement(response.measurement) if response.HasField("measurement") else None,
        response.no_times_reason or None,
    )


def median_profile(profiles: Sequence[Profile]) -> Profile:
    """Several measurements of one model as one: of each figure the median over them."""
    first = profiles[0]
    if first.measurement is None:
        return first
    measurements = [each.measurement for each in profiles if each.measurement]
    layers = tuple(
        replace(layer, time=_median([each.layers[n].time for each in profiles]))
        for n, layer in enumerate(first.layers)
    )
    total = _median([each.total for each in measurements])
    other = _median([each.other for each in measurements])
    assert total is not None
    assert other is not None
    runs = sum(each.runs for each in measurements)
    measurement = replace(first.measurement, total=total, other=other, runs=runs)
    return replace(first, layers=layers, measurement=measurement)


def _median(times: Sequence[Time | None]) -> Time | None:
    there = [time for time in times if time]
    if not there:
        return None
    return Time(
        statistics.median(time.median_s for time in there),
        statistics.median(time.lower_quartile_s for time in there),
        statistics.median(time.upper_quartile_s for time in there),
    )


async def get_filters(client: AsyncClient, model: str, layer: str = "") -> Filters:
    """Ask for the weights of a convolution.

    Args:
        client: Of a connected server.
        model: A model that the server knows, served or not.
        layer: Its name; without, the first one.

    Raises:
        ServerError: The server refused or failed.
        MalformedAnswer: The weights that came are not those that were told.
    """
    request = pb.GetFiltersRequest(model=model, layer=layer)
    header, content = None, bytearray()
    with translated_errors():
        async for response in _stub(client).GetFilters(request, timeout=MEASURE_TIMEOUT_S):
            if response.HasField("header"):
                header = response.header
            elif response.chunk.offset == len(content):
                content += response.chunk.data
    if header is None or len(content) != header.size:
        raise MalformedAnswer(f"the filters of {model} came with {len(content)} bytes")
    about = _layer(header.layer)
    shape = (
        about.out_channels,
        about.in_channels // about.groups,
        about.kernel,
        about.kernel,
    )
    weights = np.frombuffer(bytes(content), "<f4").reshape(shape).astype(np.float32)
    return Filters(header.model, about, header.weights_sha256, weights)


def _stub(client: AsyncClient) -> Any:
    return analysis_pb2_grpc.AnalysisServiceStub(client.channel)


def _layer(message: pb.LayerProfile) -> Layer:
    return Layer(
        name=message.name,
        alias=message.alias or None,
        kind=message.kind,
        groups=message.groups,
        kernel=message.kernel,
        stride=message.stride,
        in_channels=message.in_channels,
        out_channels=message.out_channels,
        height=message.height,
        width=message.width,
        params=message.params,
        macs=message.macs,
        time=_time(message.time) if message.HasField("time") else None,
        computed_in=message.computed_in or None,
    )


def _measurement(message: pb.TimeMeasurement) -> Measurement:
    return Measurement(
        engine=message.engine,
        precision=message.precision,
        device=message.device,
        threads=message.threads,
        rows=message.rows,
        runs=message.runs,
        total=_time(message.total),
        other=_time(message.other),
    )


def _time(message: pb.LayerTime) -> Time:
    return Time(
        message.median_ns * _NS, message.lower_quartile_ns * _NS, message.upper_quartile_ns * _NS
    )
