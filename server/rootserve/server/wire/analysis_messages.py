"""Analyses in the words of the wire: requests checked, results cut into chunks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from rootmodels.analysis.blocks import best_groups
from rootmodels.analysis.covariance import DEFAULT_TOLERANCE
from rootmodels.analysis.derived import Derived, Kind, Matrix
from rootmodels.analysis.errors import AnalysisError
from rootmodels.analysis.layers import Stage, network_plan
from rootmodels.analysis.moments import Array
from rootmodels.analysis.sums import LayerShape, Plan, Sums, UnknownLayerError, make_plan
from rootserve.server.analysis.datasets import Dataset
from rootserve.server.analysis.jobs import AnalysisLimits, PixelChunk
from rootserve.server.analysis.messages import fits_a_message
from rootserve.server.models import ModelCard, Models
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire.find import find_variant
from rootserve.v1 import analysis_pb2 as pb

CHUNK_BYTES = 1 << 20
_MAX_SIDE = 1 << 16
_MAX_IMAGES = 1 << 40
_MAX_LAYERS = 256
_MAX_PAIRS = 512
_MAX_NAME = 64

_STAGES: dict[int, Stage] = {
    pb.RESPONSE_STAGE_UNSPECIFIED: Stage.AFTER_RELU,
    pb.RESPONSE_STAGE_AFTER_RELU: Stage.AFTER_RELU,
    pb.RESPONSE_STAGE_BEFORE_RELU: Stage.BEFORE_RELU,
}
_STAGE_NUMBERS = {
    Stage.AFTER_RELU: pb.RESPONSE_STAGE_AFTER_RELU,
    Stage.BEFORE_RELU: pb.RESPONSE_STAGE_BEFORE_RELU,
}
_KINDS: dict[int, set[Kind]] = {
    pb.MATRIX_KIND_COVARIANCE: {Kind.COVARIANCE},
    pb.MATRIX_KIND_WHITENED: {Kind.WHITENED},
    pb.MATRIX_KIND_CORRELATION: {Kind.CORRELATION},
    pb.MATRIX_KIND_MEAN: {Kind.MEAN},
    pb.MATRIX_KIND_SUMS: {Kind.MEAN, Kind.SCATTER, Kind.CROSS_SCATTER},
}
_KIND_NUMBERS = {
    Kind.COVARIANCE: pb.MATRIX_KIND_COVARIANCE,
    Kind.WHITENED: pb.MATRIX_KIND_WHITENED,
    Kind.CORRELATION: pb.MATRIX_KIND_CORRELATION,
    Kind.MEAN: pb.MATRIX_KIND_MEAN,
    Kind.SCATTER: pb.MATRIX_KIND_SCATTER,
    Kind.CROSS_SCATTER: pb.MATRIX_KIND_CROSS_SCATTER,
}
_SUM_KINDS: dict[int, Kind] = {
    pb.MATRIX_KIND_MEAN: Kind.MEAN,
    pb.MATRIX_KIND_SCATTER: Kind.SCATTER,
    pb.MATRIX_KIND_CROSS_SCATTER: Kind.CROSS_SCATTER,
}


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be derived; ``sums`` is whether their header is to be sent as well."""

    kinds: frozenset[Kind]
    tolerance: float
    sums: bool


@dataclass(frozen=True, slots=True)
class DatasetRange:
    """``images`` of ``dataset`` from ``start`` on."""

    dataset: Dataset
    start: int
    images: int


@dataclass(frozen=True, slots=True)
class Order:
    """A valid spec. ``source`` is None when the client streams its images."""

    card: ModelCard
    plan: Plan
    stage: Stage
    options: Options
    source: DatasetRange | None
    images_total: int


def parse_spec(
    spec: pb.AnalysisSpec,
    models: Models,
    datasets: Mapping[str, Dataset],
    limits: AnalysisLimits,
) -> Order:
    """What ``spec`` asks for.

    Raises:
        RefusalError: if it cannot be done; names what came and what was expected.
    """
    card = find_variant(models, spec.model).card
    pairs = [(pair.first, pair.second) for pair in spec.pairs]
    try:
        plan = network_plan(card.layers, pairs, spec.layers)
    except UnknownLayerError as error:
        raise RefusalError(Reason.UNKNOWN_LAYER, f"{card.name}: {error}") from None
    except AnalysisError as error:
        raise RefusalError(Reason.INVALID_REQUEST, f"{card.name}: {error}") from None
    _check_plan(plan, card, limits)
    options = parse_options(spec.options)
    source, total = None, spec.client_images.expected
    match spec.WhichOneof("source"):
        case "client_images":
            _check_images(total, limits)
        case "dataset_images":
            source = _dataset_range(spec.dataset_images, datasets, card, limits)
            total = source.images
        case _:
            raise _invalid("no source of images came, expected client_images or dataset_images")
    return Order(card, plan, parse_stage(spec.stage), options, source, total)


def _check_plan(plan: Plan, card: ModelCard, limits: AnalysisLimits) -> None:
    """Refuse what would take more memory than sums may, or is more than can be told to a process.

    Raises:
        RefusalError: saying how much it is.
    """
    size = Sums.byte_size(plan)
    if size > limits.max_bytes:
        raise _invalid(
            f"the sums of {len(plan.layers)} layers and {len(plan.pairs)} pairs of {card.name} take {size} "
            f"bytes, expected at most {limits.max_bytes}; name fewer or smaller layers"
        )
    if not fits_a_message(plan):
        raise _invalid(
            f"{len(plan.layers)} layers and {len(plan.pairs)} pairs of {card.name} are too many for one "
            "analysis; name fewer layers"
        )


def _dataset_range(
    wanted: pb.DatasetImages,
    datasets: Mapping[str, Dataset],
    card: ModelCard,
    limits: AnalysisLimits,
) -> DatasetRange:
    dataset = datasets.get(wanted.name)
    if dataset is None:
        there = f"there are: {', '.join(datasets)}" if datasets else "none is configured"
        text = f"no data set is called {wanted.name!r}; {there}"
        raise RefusalError(Reason.UNKNOWN_DATASET, text)
    _check_size(dataset.height, dataset.width, card)
    if wanted.skip >= dataset.images:
        raise _invalid(
            f"skip {wanted.skip} came, data set {dataset.name} has {dataset.images} images"
        )
    left = dataset.images - wanted.skip
    images = min(wanted.take or left, left)
    _check_images(images, limits)
    return DatasetRange(dataset, wanted.skip, images)


def parse_stage(stage: int) -> Stage:
    """The stage, after the ReLU when none came.

    Raises:
        RefusalError: for a number that is none.
    """
    if stage not in _STAGES:
        raise _invalid(f"stage {stage} came, expected 0 to {max(_STAGES)}")
    return _STAGES[stage]


def parse_options(options: pb.DeriveOptions) -> Options:
    """What is to be derived.

    Raises:
        RefusalError: for a kind that cannot be asked for, or a tolerance out of range.
    """
    kinds: set[Kind] = set()
    for kind in options.results:
        if kind not in _KINDS:
            expected = ", ".join(str(known) for known in _KINDS)
            raise _invalid(f"result {kind} came, expected one of {expected} (MatrixKind)")
        kinds |= _KINDS[kind]
    tolerance = options.tolerance if options.HasField("tolerance") else DEFAULT_TOLERANCE
    if not 0 <= tolerance < 1:
        raise _invalid(f"tolerance {tolerance:g} came, expected 0 or more and below 1")
    return Options(frozenset(kinds), tolerance, pb.MATRIX_KIND_SUMS in options.results)


def parse_images(message: pb.ImageChunk, card: ModelCard) -> PixelChunk:
    """The images of ``message``.

    Raises:
        RefusalError: if they are not what the model takes, or not as many bytes as they say.
    """
    if message.rows < 1:
        raise _invalid("images with 0 rows came, expected at least 1")
    _check_size(message.height, message.width, card)
    expected = message.rows * card.pixels
    if len(message.pixels) != expected:
        channels, height, width = card.image
        raise _invalid(
            f"images of {len(message.pixels)} bytes came, expected {expected}: "
            f"uint8 [{message.rows}, {channels}, {height}, {width}]"
        )
    return PixelChunk(message.rows, message.height, message.width, message.pixels)


def _check_size(height: int, width: int, card: ModelCard) -> None:
    if (height, width) != card.image[1:]:
        raise _invalid(
            f"images of {height}x{width} pixels came, {card.name} takes "
            f"{card.image[1]}x{card.image[2]}"
        )


def _check_images(images: int, limits: AnalysisLimits) -> None:
    if images > limits.max_images:
        raise _invalid(f"{images} images came, an analysis takes at most {limits.max_images}")


def _invalid(text: str) -> RefusalError:
    return RefusalError(Reason.INVALID_REQUEST, text)


# Answers.


def started(job: str, order: Order) -> pb.AnalysisStarted:
    """The first message of an answer."""
    return pb.AnalysisStarted(
        job=job,
        layers=[_shape(layer) for layer in order.plan.layers],
        pairs=_pairs(order.plan),
        images_total=order.images_total,
    )


@dataclass(frozen=True, slots=True)
class Subject:
    """What sums are of."""

    model: str
    weights_sha256: str
    stage: Stage


def summary(
    subject: Subject, sums: Sums, derived: Derived, tolerance: float, elapsed_s: float
) -> pb.AnalysisSummary:
    """All figures but the matrices."""
    plan = sums.plan
    return pb.AnalysisSummary(
        model=subject.model,
        weights_sha256=subject.weights_sha256,
        stage=_STAGE_NUMBERS[subject.stage],
        images=sums.images,
        tolerance=tolerance,
        layers=[
            pb.LayerSummary(
                layer=_shape(layer),
                samples=sums.layers[layer.name].samples,
                varying_channels=figures.varying_channels,
                rank=figures.rank,
            )
            for layer, figures in zip(plan.layers, derived.layers, strict=True)
        ],
        pairs=[
            pb.PairSummary(
                pair=pb.LayerPair(first=pair[0], second=pair[1]),
                samples=sums.pairs[pair].samples,
                scores=[
                    pb.BlockScore(
                        groups=score.groups,
                        ratio=score.ratio,
                        energy=score.energy,
                        fit=score.fit,
                        deviations=score.deviations,
                    )
                    for score in scores
                ],
                best_groups=best_groups(list(scores)),
            )
            for pair, scores in zip(plan.pairs, derived.scores, strict=True)
        ],
        elapsed_ns=round(elapsed_s * 1e9),
    )


def sums_header(subject: Subject, sums: Sums) -> pb.Sums:
    """What goes before the chunks of sums."""
    return pb.Sums(
        model=subject.model,
        weights_sha256=subject.weights_sha256,
        stage=_STAGE_NUMBERS[subject.stage],
        images=sums.images,
        layers=[_shape(layer) for layer in sums.plan.layers],
        pairs=_pairs(sums.plan),
    )


def matrix_chunks(matrices: Collection[Matrix]) -> Iterator[pb.MatrixChunk]:
    """``matrices``, one after the other, in pieces."""
    for matrix in matrices:
        rows, columns = matrix.values.shape
        data = matrix.values.astype("<f8").tobytes()
        for position in range(0, len(data), CHUNK_BYTES):
            yield pb.MatrixChunk(
                kind=_KIND_NUMBERS[matrix.kind],
                first=matrix.layers[0],
                second=matrix.layers[1] if len(matrix.layers) > 1 else "",
                rows=rows,
                columns=columns,
                offset=position // 8,
                data=data[position : position + CHUNK_BYTES],
            )


def _shape(layer: LayerShape) -> pb.LayerShape:
    return pb.LayerShape(
        name=layer.name,
        channels=layer.channels,
        height=layer.height,
        width=layer.width,
        groups=layer.groups,
    )


def _pairs(plan: Plan) -> list[pb.LayerPair]:
    return [pb.LayerPair(first=first, second=second) for first, second in plan.pairs]


class SumsReader:
    """Puts the sums of one part together from its header and chunks.

    Raises:
        RefusalError: if the header makes no sense, its sums have more than ``max_bytes``, or ``hold``, which
            is told how many before there is room for them, refuses.
    """

    def __init__(
        self, header: pb.Sums, max_bytes: int, hold: Callable[[int], None] = lambda size: None
    ) -> None:
        self.subject = Subject(header.model, header.weights_sha256, parse_stage(header.stage))
        self.images = header.images
        self.plan = _parse_plan(header)
        size = Sums.byte_size(self.plan)
        if size > max_bytes:
            raise _invalid(f"sums of {size} bytes came, at most {max_bytes} are taken")
        hold(size)
        self._matrices: dict[tuple[Kind, str, str], Array] = {}
        for layer in self.plan.layers:
            self._expect(Kind.MEAN, layer.name, "", 1, layer.channels)
            self._expect(Kind.SCATTER, layer.name, "", layer.channels, layer.channels)
        for first, second in self.plan.pairs:
            shapes = self.plan.pair((first, second))
            self._expect(Kind.CROSS_SCATTER, first, second, shapes[0].channels, shapes[1].channels)
        self._filled = dict.fromkeys(self._matrices, 0)

    def _expect(self, kind: Kind, first: str, second: str, rows: int, columns: int) -> None:
        self._matrices[kind, first, second] = np.empty((rows, columns))

    def add(self, chunk: pb.MatrixChunk) -> None:
        """Take a piece.

        Raises:
            RefusalError: if it does not belong here, or is not the next of its matrix.
        """
        name = f"{pb.MatrixKind.Name(chunk.kind)} {chunk.first} {chunk.second}".strip()
        kind = _SUM_KINDS.get(chunk.kind)
        matrix = self._matrices.get((kind, chunk.first, chunk.second)) if kind else None
        if kind is None or matrix is None:
            raise _invalid(f"a piece of {name} came, which the header does not have")
        if (chunk.rows, chunk.columns) != matrix.shape:
            expected = "x".join(map(str, matrix.shape))
            raise _invalid(f"{name} of {chunk.rows}x{chunk.columns} came, expected {expected}")
        key = (kind, chunk.first, chunk.second)
        position = self._filled[key]
        if chunk.offset != position:
            raise _invalid(f"a piece of {name} from {chunk.offset} came, expected from {position}")
        if len(chunk.data) % 8 or position + len(chunk.data) // 8 > matrix.size:
            raise _invalid(
                f"a piece of {name} of {len(chunk.data)} bytes came, expected float64 values, "
                f"{matrix.size - position} or fewer"
            )
        values = np.frombuffer(chunk.data, "<f8")
        if not np.isfinite(values).all():
            raise _invalid(f"{name} has a value that is not finite")
        matrix.reshape(-1)[position : position + len(values)] = values
        self._filled[key] = position + len(values)

    def result(self) -> Sums:
        """The sums.

        Raises:
            RefusalError: if a piece is missing.
        """
        for (kind, first, second), filled in self._filled.items():
            size = self._matrices[kind, first, second].size
            if filled < size:
                name = f"{kind.value} {first} {second}".strip()
                raise _invalid(f"{name} ended after {filled} values, expected {size}")
        return Sums.from_matrices(
            self.plan,
            self.images,
            {
                layer.name: self._matrices[Kind.MEAN, layer.name, ""][0]
                for layer in self.plan.layers
            },
            {
                layer.name: self._matrices[Kind.SCATTER, layer.name, ""]
                for layer in self.plan.layers
            },
            {pair: self._matrices[Kind.CROSS_SCATTER, *pair] for pair in self.plan.pairs},
        )


def _parse_plan(header: pb.Sums) -> Plan:
    if len(header.layers) > _MAX_LAYERS or len(header.pairs) > _MAX_PAIRS:
        raise _invalid(
            f"sums of {len(header.layers)} layers and {len(header.pairs)} pairs came, expected at "
            f"most {_MAX_LAYERS} and {_MAX_PAIRS}"
        )
    available = []
    for layer in header.layers:
        sides = (layer.channels, layer.height, layer.width, layer.groups)
        if not 0 < len(layer.name) <= _MAX_NAME or min(sides) < 1 or max(sides) > _MAX_SIDE:
            raise _invalid(
                f"layer {layer.name!r} with channels, height, width, groups "
                f"{', '.join(map(str, sides))} came, expected a name of up to {_MAX_NAME} letters "
                f"and 1 to {_MAX_SIDE}"
            )
        available.append(LayerShape(layer.name, *sides))
    names = [layer.name for layer in available]
    if not names or len(set(names)) < len(names):
        raise _invalid(f"sums of the layers {names} came, expected at least one, each once")
    if not 1 <= header.images <= _MAX_IMAGES:
        raise _invalid(f"sums of {header.images} images came, expected 1 to {_MAX_IMAGES}")
    try:
        return make_plan(available, [(pair.first, pair.second) for pair in header.pairs], names)
    except AnalysisError as error:
        raise _invalid(str(error)) from None
