"""Calls of the analysis service: images go up, progress and results come down."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from rootserve.client.analysis.messages import Assembler, matrix_chunks, matrix_kinds, sums_header
from rootserve.client.analysis.results import Analysis, Sums
from rootserve.client.analysis.sources import LocalImages, ServerImages
from rootserve.client.channel import translated_errors
from rootserve.client.errors import InputError
from rootserve.client.inference import AsyncClient
from rootserve.v1 import analysis_pb2 as pb
from rootserve.v1 import analysis_pb2_grpc

COVARIANCE_RESULTS = ("covariance", "whitened", "correlation", "mean")
CORRELATION_RESULTS = ("correlation", "mean")

_CHUNK_BYTES = 1024 * 1024
_NS = 1e-9


@dataclass(frozen=True, slots=True)
class Request:
    """What to analyse.

    Args:
        model: Name of a served model.
        pairs: Of layers; without pairs and layers, every two that are adjacent.
        layers: To be looked at for themselves, beside those in pairs.
        before_relu: Take responses before the ReLU instead of after it.
        results: Kinds of matrices to send; "sums" asks for what `derive` takes.
        tolerance: Share of the largest eigenvalue up to which one counts as zero; None leaves it
            to the server.
    """

    model: str
    pairs: Sequence[tuple[str, str]] = ()
    layers: Sequence[str] = ()
    before_relu: bool = False
    results: tuple[str, ...] = COVARIANCE_RESULTS
    tolerance: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an analysis is. `images_total` is 0, and `remaining_s` None, while not known."""

    images_done: int
    images_total: int
    images_per_s: float
    remaining_s: float | None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set that the server has: its name, its images and their size in pixels."""

    name: str
    images: int
    height: int
    width: int


class Watcher(Protocol):
    """Is told of an analysis under way. What it raises ends the analysis."""

    def started(self, channels: Mapping[str, int], pairs: Sequence[tuple[str, str]]) -> None:
        """The server has taken it: channels by layer, and the pairs."""

    def progress(self, progress: Progress) -> None:
        """It has come this far; about twice a second."""


async def analyze(
    client: AsyncClient,
    request: Request,
    source: LocalImages | ServerImages,
    watcher: Watcher | None = None,
) -> Analysis:
    """Run one analysis and wait for its result. Cancelling this cancels it on the server.

    Raises:
        InputError: An image cannot be read.
        ServerError: The server refused or failed.
        MalformedAnswer: The answer cannot be read.
    """
    call = _stub(client).Analyze()
    sender = asyncio.create_task(_send(call, _spec(request, source), source))
    receiver = asyncio.create_task(_receive(call, watcher))
    try:
        await asyncio.wait({sender, receiver}, return_when=asyncio.FIRST_EXCEPTION)
        if sender.done():
            sender.result()
        return receiver.result()
    finally:
        call.cancel()
        sender.cancel()
        receiver.cancel()
        await asyncio.gather(sender, receiver, return_exceptions=True)


async def derive(
    client: AsyncClient,
    parts: Sequence[Sums],
    *,
    results: tuple[str, ...] = COVARIANCE_RESULTS,
    tolerance: float | None = None,
) -> Analysis:
    """Merge the sums of analyses of different images, exactly, and derive what one of all would give.

    Raises:
        InputError: There are no parts.
        ServerError: The parts do not fit together, or the server refused otherwise.
        MalformedAnswer: The answer cannot be read.
    """
    if not parts:
        raise InputError("no sums to merge: expected at least one part")
    assembler = Assembler()
    with translated_errors():
        async for response in _stub(client).Derive(_parts(parts, results, tolerance)):
            assembler.take(response)
    return assembler.result()


async def list_datasets(client: AsyncClient) -> list[Dataset]:
    """The data sets that the server has."""
    with translated_errors():
        response = await _stub(client).ListDatasets(
            pb.ListDatasetsRequest(), timeout=client.timeout_s
        )
    return [Dataset(each.name, each.images, each.height, each.width) for each in response.datasets]


def _stub(client: AsyncClient) -> Any:
    return analysis_pb2_grpc.AnalysisServiceStub(client.channel)


def _options(results: tuple[str, ...], tolerance: float | None) -> pb.DeriveOptions:
    return pb.DeriveOptions(results=matrix_kinds(results), tolerance=tolerance)


def _spec(request: Request, source: LocalImages | ServerImages) -> pb.AnalysisSpec:
    stage = pb.RESPONSE_STAGE_AFTER_RELU
    if request.before_relu:
        stage = pb.RESPONSE_STAGE_BEFORE_RELU
    spec = pb.AnalysisSpec(
        model=request.model,
        pairs=[pb.LayerPair(first=first, second=second) for first, second in request.pairs],
        layers=request.layers,
        stage=stage,
        options=_options(request.results, request.tolerance),
    )
    if isinstance(source, ServerImages):
        spec.dataset_images.name = source.dataset
        spec.dataset_images.skip = source.skip
        spec.dataset_images.take = source.take or 0
    else:
        spec.client_images.expected = source.count
    return spec


async def _send(call: Any, spec: pb.AnalysisSpec, source: LocalImages | ServerImages) -> None:
    try:
        await call.write(pb.AnalyzeRequest(spec=spec))
        if isinstance(source, LocalImages):
            async for chunk in _decoded(source):
                await call.write(pb.AnalyzeRequest(images=_image_chunk(chunk)))
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        # The server has ended the call; whoever receives is told why.
        return


async def _decoded(source: LocalImages) -> AsyncIterator[NDArray[np.uint8]]:
    # In a thread: the event loop has answers to take meanwhile.
    first = await asyncio.to_thread(next, source.chunks(1), None)
    if first is None:
        return
    chunks: Iterator[NDArray[np.uint8]] = source.chunks(max(1, _CHUNK_BYTES // first.nbytes))
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk


def _image_chunk(images: NDArray[np.uint8]) -> pb.ImageChunk:
    rows, _, height, width = images.shape
    return pb.ImageChunk(rows=rows, height=height, width=width, pixels=images.tobytes())


async def _receive(call: Any, watcher: Watcher | None) -> Analysis:
    assembler = Assembler()
    with translated_errors():
        async for response in call:
            if watcher is not None:
                _tell(watcher, response)
            assembler.take(response)
    return assembler.result()


def _tell(watcher: Watcher, response: pb.AnalyzeResponse) -> None:
    match response.WhichOneof("message"):
        case "started":
            watcher.started(
                {layer.name: layer.channels for layer in response.started.layers},
                [(pair.first, pair.second) for pair in response.started.pairs],
            )
        case "progress":
            message = response.progress
            remaining = message.remaining_ns * _NS if message.HasField("remaining_ns") else None
            watcher.progress(
                Progress(message.images_done, message.images_total, message.images_per_s, remaining)
            )


async def _parts(
    parts: Sequence[Sums], results: tuple[str, ...], tolerance: float | None
) -> AsyncIterator[pb.DeriveRequest]:
    yield pb.DeriveRequest(options=_options(results, tolerance))
    for part in parts:
        yield pb.DeriveRequest(sums=sums_header(part))
        for key, matrix in part.matrices.items():
            for chunk in matrix_chunks(key, matrix):
                yield pb.DeriveRequest(chunk=chunk)
