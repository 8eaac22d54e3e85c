"""The analysis service's messages to and from plain values."""

import math
import re
from collections.abc import Mapping

import numpy as np

from rootserve.client.analysis.results import Analysis, Layer, Matrix, Pair, Score, Sums
from rootserve.client.errors import MalformedAnswer
from rootserve.v1 import analysis_pb2 as pb

# Names become parts of file names.
_LAYER_NAME = re.compile(r"[\w.]+", re.ASCII)
_DTYPE = np.dtype("<f8")
_CHUNK_BYTES = 1024 * 1024
_NS = 1e-9

_KINDS = {
    pb.MATRIX_KIND_COVARIANCE: "covariance",
    pb.MATRIX_KIND_WHITENED: "whitened",
    pb.MATRIX_KIND_CORRELATION: "correlation",
    pb.MATRIX_KIND_MEAN: "mean",
    pb.MATRIX_KIND_SCATTER: "scatter",
    pb.MATRIX_KIND_CROSS_SCATTER: "cross_scatter",
}
_NUMBERS = {name: number for number, name in _KINDS.items()}

Key = tuple[str, str, str]
"""Kind of a matrix, its first layer, its second or ""."""


class Assembler:
    """Puts the server's summary, sums and chunks of matrices together, as they come."""

    def __init__(self) -> None:
        self._summary: pb.AnalysisSummary | None = None
        self._sums: pb.Sums | None = None
        self._matrices: dict[Key, Matrix] = {}
        self._filled: dict[Key, int] = {}

    def take(self, message: pb.AnalyzeResponse | pb.DeriveResponse) -> None:
        """Take what this message brings of the result.

        Raises:
            MalformedAnswer: A chunk is of no known kind, or does not continue its matrix.
        """
        match message.WhichOneof("message"):
            case "summary":
                self._summary = message.summary
            case "sums":
                self._sums = message.sums
            case "chunk":
                self._take_chunk(message.chunk)

    def _take_chunk(self, chunk: pb.MatrixChunk) -> None:
        key = (_KINDS.get(chunk.kind, ""), chunk.first, chunk.second)
        if not key[0]:
            raise MalformedAnswer(f"a matrix of kind {chunk.kind}: expected one of {_NUMBERS}")
        shape = (chunk.rows, chunk.columns)
        if key not in self._matrices:
            self._matrices[key] = np.zeros(shape)
            self._filled[key] = 0
        matrix = self._matrices[key]
        filled = self._filled[key]
        elements, rest = divmod(len(chunk.data), _DTYPE.itemsize)
        fits = matrix.shape == shape and filled == chunk.offset and not rest
        if not fits or filled + elements > matrix.size:
            raise MalformedAnswer(
                f"matrix {_words(key)}: a chunk of {len(chunk.data)} bytes at element "
                f"{chunk.offset} of {list(shape)} does not follow {filled} elements of "
                f"{list(matrix.shape)}"
            )
        matrix.reshape(-1)[filled : filled + elements] = np.frombuffer(chunk.data, _DTYPE)
        self._filled[key] += elements

    def result(self) -> Analysis:
        """The whole, once the call has ended.

        Raises:
            MalformedAnswer: No summary came, or not all of a matrix.
        """
        if self._summary is None:
            raise MalformedAnswer("the analysis ended without a summary")
        for key, matrix in self._matrices.items():
            if self._filled[key] != matrix.size:
                raise MalformedAnswer(
                    f"matrix {_words(key)}: {self._filled[key]} of {matrix.size} elements came"
                )
            if not np.isfinite(matrix).all():
                raise MalformedAnswer(
                    f"matrix {_words(key)}: has values that are not finite; the responses of "
                    f"{' or '.join(filter(None, key[1:]))} overflow"
                )
        return _read_summary(self._summary, self._matrices, self._sums)


def _words(key: Key) -> str:
    return " ".join(filter(None, key))


def _read_summary(
    summary: pb.AnalysisSummary, matrices: Mapping[Key, Matrix], sums: pb.Sums | None
) -> Analysis:
    layers = {each.layer.name: _read_layer(each, matrices) for each in summary.layers}
    pairs = tuple(_read_pair(each, matrices) for each in summary.pairs)
    for pair in pairs:
        for name in (pair.first, pair.second):
            if name not in layers:
                raise MalformedAnswer(f"the summary has the pair {pair.name} and no layer {name}")
    return Analysis(
        model=summary.model,
        weights_sha256=summary.weights_sha256,
        images=summary.images,
        before_relu=summary.stage == pb.RESPONSE_STAGE_BEFORE_RELU,
        tolerance=summary.tolerance,
        layers=layers,
        pairs=pairs,
        elapsed_s=summary.elapsed_ns * _NS,
        sums=_read_sums(sums, matrices) if sums is not None else None,
    )


def _read_layer(message: pb.LayerSummary, matrices: Mapping[Key, Matrix]) -> Layer:
    shape = message.layer
    if not _LAYER_NAME.fullmatch(shape.name) or not shape.name.strip("."):
        raise MalformedAnswer(
            f"a layer is called {shape.name!r}: expected letters, digits, _ and ."
        )
    mean = matrices.get(("mean", shape.name, ""))
    return Layer(
        name=shape.name,
        channels=shape.channels,
        height=shape.height,
        width=shape.width,
        groups=shape.groups,
        samples=message.samples,
        varying=message.varying_channels,
        rank=message.rank,
        mean=None if mean is None else mean.reshape(-1),
        correlation=matrices.get(("correlation", shape.name, "")),
    )


def _read_pair(message: pb.PairSummary, matrices: Mapping[Key, Matrix]) -> Pair:
    first, second = message.pair.first, message.pair.second
    return Pair(
        first=first,
        second=second,
        samples=message.samples,
        scores={
            score.groups: Score(score.ratio, score.energy, score.fit, score.deviations)
            for score in message.scores
        },
        best_groups=message.best_groups,
        covariance=matrices.get(("covariance", first, second)),
        whitened=matrices.get(("whitened", first, second)),
    )


def _read_sums(header: pb.Sums, matrices: Mapping[Key, Matrix]) -> Sums:
    kept = ("mean", "scatter", "cross_scatter")
    return Sums(
        header.SerializeToString(),
        {key: matrix for key, matrix in matrices.items() if key[0] in kept},
    )


def sums_header(sums: Sums) -> pb.Sums:
    """The message that says what sums belong to."""
    return pb.Sums.FromString(sums.header)


def matrix_kinds(names: tuple[str, ...]) -> list[pb.MatrixKind.ValueType]:
    """The numbers of kinds such as "covariance"; "sums" asks for the sums themselves."""
    return [pb.MATRIX_KIND_SUMS if name == "sums" else _NUMBERS[name] for name in names]


def matrix_chunks(key: Key, matrix: Matrix) -> list[pb.MatrixChunk]:
    """A matrix in chunks of at most 1 MiB."""
    kind, first, second = key
    rows, columns = matrix.shape
    flat = np.ascontiguousarray(matrix, _DTYPE).reshape(-1)
    step = _CHUNK_BYTES // _DTYPE.itemsize
    return [
        pb.MatrixChunk(
            kind=_NUMBERS[kind],
            first=first,
            second=second,
            rows=rows,
            columns=columns,
            offset=offset,
            data=flat[offset : offset + step].tobytes(),
        )
        for offset in range(0, math.prod(matrix.shape), step)
    ]
