"""rootserve.v1.AnalysisService: images in, progress, figures and matrices out; layers and filters."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc

from rootmodels.analysis.errors import AnalysisError
from rootmodels.analysis.sums import Sums
from rootserve.server.analysis import messages
from rootserve.server.analysis.datasets import Dataset
from rootserve.server.analysis.jobs import (
    CHUNK_IMAGES,
    Analyses,
    Analysis,
    Chunk,
    PixelChunk,
    Place,
    dataset_chunks,
)
from rootserve.server.engines.base import Precision
from rootserve.server.engines.registry import can_profile
from rootserve.server.models import Models
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire.analysis_messages import (
    Order,
    Subject,
    SumsReader,
    matrix_chunks,
    parse_images,
    parse_options,
    parse_spec,
    started,
    summary,
    sums_header,
)
from rootserve.server.wire.find import find_known_model
from rootserve.server.wire.profile_messages import (
    add_times,
    filter_chunks,
    find_convolution,
    layer_profile,
)
from rootserve.v1 import analysis_pb2 as pb
from rootserve.v1 import analysis_pb2_grpc

_Message = TypeVar("_Message", pb.AnalyzeRequest, pb.DeriveRequest)
Context = grpc.aio.ServicerContext[Any, Any]

_PROGRESS_S = 0.5
_SILENCE_S = 60.0
"""A client that says nothing for so long holds no place among the analyses any more."""


@dataclass(frozen=True, slots=True)
class ServingDefaults:
    """What a model is computed with that is not served, and how many images at once."""

    engine: str
    precision: Precision
    max_rows: int


class AnalysisService(analysis_pb2_grpc.AnalysisServiceServicer):
    """Parses, hands on, replies."""

    def __init__(
        self,
        models: Models,
        datasets: Mapping[str, Dataset],
        analyses: Analyses,
        serving: ServingDefaults,
    ) -> None:
        self._models = models
        self._datasets = datasets
        self._analyses = analyses
        self._serving = serving

    async def Analyze(  # noqa: N802 - the protocol's name
        self, request_iterator: AsyncIterator[pb.AnalyzeRequest], context: Context
    ) -> AsyncIterator[pb.AnalyzeResponse]:
        """Analyse images."""
        requests = request_iterator
        first = await _next(requests)
        if first is None or first.WhichOneof("message") != "spec":
            raise RefusalError(Reason.INVALID_REQUEST, "expected a spec as the first message")
        order = parse_spec(first.spec, self._models, self._datasets, self._analyses.limits)
        with self._analyses.open(order.card, order.plan, order.stage) as analysis:
            yield pb.AnalyzeResponse(started=started(analysis.name, order))
            work = asyncio.ensure_future(analysis.run(self._chunks(order, requests)))
            try:
                while not work.done():
                    await asyncio.wait({work}, timeout=_PROGRESS_S)
                    yield pb.AnalyzeResponse(progress=_progress(analysis, order))
                work.result()
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
            async for response in _results(analysis, order):
                yield response

    def _chunks(
        self, order: Order, requests: AsyncIterator[pb.AnalyzeRequest]
    ) -> AsyncIterator[Chunk]:
        if order.source is None:
            return self._client_chunks(order, requests)
        return _server_chunks(order)

    async def _client_chunks(
        self, order: Order, requests: AsyncIterator[pb.AnalyzeRequest]
    ) -> AsyncIterator[Chunk]:
        """What the client streams, cut or joined to chunks of one size."""
        limits = self._analyses.limits
        _, height, width = order.card.image
        pixels = order.card.pixels
        waiting = bytearray()
        images = 0
        while (request := await _next(requests)) is not None:
            if request.WhichOneof("message") != "images":
                text = "expected nothing but images after the spec"
                raise RefusalError(Reason.INVALID_REQUEST, text)
            part = parse_images(request.images, order.card)
            images += part.rows
            if images > limits.max_images or images * pixels > limits.max_bytes:
                text = (
                    f"{images} images, {images * pixels} bytes, came; an analysis takes at most "
                    f"{limits.max_images} images and {limits.max_bytes} bytes"
                )
                raise RefusalError(Reason.INVALID_REQUEST, text)
            waiting += part.pixels
            while len(waiting) >= CHUNK_IMAGES * pixels:
                content = bytes(waiting[: CHUNK_IMAGES * pixels])
                del waiting[: CHUNK_IMAGES * pixels]
                yield PixelChunk(CHUNK_IMAGES, height, width, content)
        if waiting:
            yield PixelChunk(len(waiting) // pixels, height, width, bytes(waiting))

    async def Derive(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.DeriveRequest], context: Context
    ) -> AsyncIterator[pb.DeriveResponse]:
        """Merge sums and derive results."""
        requests = request_iterator
        first = await _next(requests)
        if first is None or first.WhichOneof("message") != "options":
            raise RefusalError(Reason.INVALID_REQUEST, "expected options as the first message")
        options = parse_options(first.options)
        with self._analyses.place() as place:
            subject, sums = await self._merged(requests, place)
            derived = await self._analyses.derive(sums, options.kinds, options.tolerance)
            head = summary(subject, sums, derived, options.tolerance, 0.0)
            yield pb.DeriveResponse(summary=head)
            if options.sums:
                yield pb.DeriveResponse(sums=sums_header(subject, sums))
            for chunk in matrix_chunks(derived.matrices):
                yield pb.DeriveResponse(chunk=chunk)

    async def _merged(
        self, requests: AsyncIterator[pb.DeriveRequest], place: Place
    ) -> tuple[Subject, Sums]:
        """The sums of all parts together, and what they are of. Holds two parts at a time."""
        merged: Sums | None = None
        part: SumsReader | None = None
        while True:
            request = await _next(requests)
            kind = request.WhichOneof("message") if request is not None else None
            if request is not None and kind == "chunk" and part is not None:
                part.add(request.chunk)
                continue
            if request is not None and kind != "sums":
                raise RefusalError(Reason.INVALID_REQUEST, "expected sums, and chunks after them")
            if part is not None:
                merged = await _merge(merged, part)
            if request is None:
                break
            following = SumsReader(request.sums, self._analyses.limits.max_bytes, place.hold)
            if part is not None and following.subject != part.subject:
                text = (
                    f"sums of {_words(part.subject)} and of {_words(following.subject)} came, "
                    "expected all of the same model, weights and stage"
                )
                raise RefusalError(Reason.INVALID_REQUEST, text)
            part = following
        if merged is None or part is None:
            raise RefusalError(Reason.INVALID_REQUEST, "no sums came, expected at least one part")
        return part.subject, merged

    async def ListDatasets(  # noqa: N802
        self, request: pb.ListDatasetsRequest, context: Context
    ) -> pb.ListDatasetsResponse:
        """The data sets that are configured."""
        return pb.ListDatasetsResponse(
            datasets=[
                pb.Dataset(name=one.name, images=one.images, height=one.height, width=one.width)
                for one in self._datasets.values()
            ]
        )

    async def GetProfile(  # noqa: N802
        self, request: pb.GetProfileRequest, context: Context
    ) -> pb.GetProfileResponse:
        """Cost, and on request times, of each layer."""
        model = find_known_model(self._models, request.model)
        card = model.card
        response = pb.GetProfileResponse(
            model=card.name, layers=[layer_profile(cost) for cost in card.cost.layers]
        )
        rows = request.rows or 1
        if rows > self._serving.max_rows:
            text = f"rows: {rows} came, expected at most {self._serving.max_rows}"
            raise RefusalError(Reason.INVALID_REQUEST, text)
        if not request.measure:
            return response
        engine = model.engine or self._serving.engine
        if not can_profile(engine):
            response.no_times_reason = f"engine {engine} cannot tell the time of a layer"
            return response
        precision = cast("Precision", model.precision or self._serving.precision)

        def ask(job: int) -> messages.Profile:
            return messages.Profile(job, engine, precision, rows, card.image)

        times, _ = await self._analyses.inspect(card, ask)
        assert isinstance(times, messages.Profiled)
        response.measurement.engine = engine
        response.measurement.precision = precision
        response.measurement.device = self._analyses.inspector.device
        response.measurement.threads = self._analyses.inspector.threads
        response.measurement.rows = rows
        add_times(response, times)
        return response

    async def GetFilters(  # noqa: N802
        self, request: pb.GetFiltersRequest, context: Context
    ) -> AsyncIterator[pb.GetFiltersResponse]:
        """The weights of one convolution."""
        card = find_known_model(self._models, request.model).card
        cost = find_convolution(card, request.layer)
        size = 4 * math.prod(cost.layer.weight_shape)

        def ask(job: int) -> messages.Filters:
            return messages.Filters(job, cost.layer.name)

        reply, weights = await self._analyses.inspect(card, ask, output_bytes=size)
        assert isinstance(reply, messages.Filtered)
        assert reply.length == size, "the table and the weights agree"
        header = pb.FiltersHeader(
            model=card.name,
            weights_sha256=reply.weights_sha256,
            layer=layer_profile(cost),
            size=size,
        )
        yield pb.GetFiltersResponse(header=header)
        for chunk in filter_chunks(weights):
            yield pb.GetFiltersResponse(chunk=chunk)


async def _next(requests: AsyncIterator[_Message]) -> _Message | None:
    """The client's next message; None when it has closed its side."""
    try:
        return await asyncio.wait_for(anext(requests, None), _SILENCE_S)
    except TimeoutError:
        text = f"nothing came for {_SILENCE_S:g} s, expected images or the end of the stream"
        raise RefusalError(Reason.INVALID_REQUEST, text) from None


async def _server_chunks(order: Order) -> AsyncIterator[Chunk]:
    assert order.source is not None
    for chunk in dataset_chunks(order.source.dataset, order.source.start, order.source.images):
        yield chunk


async def _merge(merged: Sums | None, part: SumsReader) -> Sums:
    sums = part.result()
    if merged is None:
        return sums
    try:
        return await asyncio.to_thread(merged.merge, sums)
    except AnalysisError as error:
        raise RefusalError(Reason.INVALID_REQUEST, str(error)) from None


def _words(subject: Subject) -> str:
    weights = subject.weights_sha256[:12] or "none"
    return f"{subject.model} (weights {weights}, {subject.stage.value})"


def _progress(analysis: Analysis, order: Order) -> pb.AnalysisProgress:
    progress = analysis.progress(order.images_total)
    message = pb.AnalysisProgress(
        images_done=progress.images,
        images_total=order.images_total,
        images_per_s=progress.images_per_s,
        elapsed_ns=round(progress.elapsed_s * 1e9),
    )
    if progress.remaining_s is not None:
        message.remaining_ns = round(progress.remaining_s * 1e9)
    return message


async def _results(analysis: Analysis, order: Order) -> AsyncIterator[pb.AnalyzeResponse]:
    options = order.options
    derived = await analysis.derive(options.kinds, options.tolerance)
    subject = Subject(order.card.name, analysis.weights_sha256, order.stage)
    elapsed_s = analysis.progress(order.images_total).elapsed_s
    head = summary(subject, analysis.sums, derived, options.tolerance, elapsed_s)
    yield pb.AnalyzeResponse(summary=head)
    if options.sums:
        yield pb.AnalyzeResponse(sums=sums_header(subject, analysis.sums))
    for chunk in matrix_chunks(derived.matrices):
        yield pb.AnalyzeResponse(chunk=chunk)
