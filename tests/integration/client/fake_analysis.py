"""A server with an analysis service whose answers are made up, and which keeps what it was sent."""

import threading

import grpc
import numpy as np

from rootserve.v1 import analysis_pb2 as pb
from rootserve.v1 import analysis_pb2_grpc
from tests.integration.client.fake_rootserve import FakeRootserve

LAYERS = {"conv1c": (96, 8, 1), "conv2a": (192, 4, 16), "conv2b": (192, 4, 1)}
PAIRS = [("conv1c", "conv2a"), ("conv2a", "conv2b")]
CHUNK_ELEMENTS = 5000
DEAD = 7
"""A channel of conv1c that never varies."""


class FakeAnalysis(FakeRootserve, analysis_pb2_grpc.AnalysisServiceServicer):
    """Answers each analysis with block-diagonal noise for the pairs asked for.

    Attributes:
        images: Rows of each chunk that came.
        specs: What was asked for.
        sums: Parts that Derive was sent, with the number of their chunks.
        refusal: Code and words to refuse with, after `started`.
        hangs: Whether an analysis waits until it is cancelled.
        cancelled: Set when a call was.
        damage: Changes a message before it is sent; None leaves it out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.images: list[np.ndarray] = []
        self.specs: list[pb.AnalysisSpec] = []
        self.sums: list[pb.Sums] = []
        self.sums_chunks = 0
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.hangs = False
        self.begun = threading.Event()
        self.cancelled = threading.Event()
        self.damage = lambda message: message
        analysis_pb2_grpc.add_AnalysisServiceServicer_to_server(self, self._server)

    def Analyze(self, requests, context):  # noqa: N802
        context.add_callback(self._ended)
        spec = next(requests).spec
        self.specs.append(spec)
        pairs = [(pair.first, pair.second) for pair in spec.pairs] or PAIRS
        yield pb.AnalyzeResponse(
            started=pb.AnalysisStarted(
                job="a-1",
                layers=[shape(name) for name in LAYERS],
                pairs=[pb.LayerPair(first=first, second=second) for first, second in pairs],
                images_total=spec.client_images.expected,
            )
        )
        if self.refusal:
            context.abort(*self.refusal)
        done = 0
        for request in requests:
            chunk = request.images
            form = (chunk.rows, 3, chunk.height, chunk.width)
            self.images.append(np.frombuffer(chunk.pixels, np.uint8).reshape(form))
            done += chunk.rows
            yield pb.AnalyzeResponse(
                progress=pb.AnalysisProgress(
                    images_done=done,
                    images_total=spec.client_images.expected,
                    images_per_s=100.0,
                    remaining_ns=1_000_000_000,
                )
            )
        if self.hangs:
            self.begun.set()
            self.cancelled.wait(60)
            return
        self.finished = True
        for message in self._results(spec.model, pairs, done, spec.stage, spec.options.results):
            damaged = self.damage(pb.AnalyzeResponse(**message))
            if damaged is not None:
                yield damaged

    def _ended(self) -> None:
        self.cancelled.set()

    def Derive(self, requests, context):  # noqa: N802
        options = next(requests).options
        for request in requests:
            if request.WhichOneof("message") == "sums":
                self.sums.append(request.sums)
            else:
                self.sums_chunks += 1
        images = sum(part.images for part in self.sums)
        first = self.sums[0]
        for message in self._results(first.model, PAIRS, images, first.stage, options.results):
            yield pb.DeriveResponse(**message)

    def ListDatasets(self, request, context):  # noqa: N802
        return pb.ListDatasetsResponse(
            datasets=[pb.Dataset(name="cifar10", images=10_000, height=32, width=32)]
        )

    def _results(self, model, pairs, images, stage, kinds):
        yield {"summary": summary(model, pairs, images, stage)}
        if pb.MATRIX_KIND_SUMS in kinds:
            yield {"sums": pb.Sums(model=model, images=images, stage=stage)}
            for chunk in chunks(pb.MATRIX_KIND_SCATTER, "conv1c", "", matrix("conv1c", "conv1c")):
                yield {"chunk": chunk}
        for name, (channels, _, _) in LAYERS.items():
            if pb.MATRIX_KIND_MEAN in kinds:
                mean = np.arange(channels, dtype=float)[None]
                for chunk in chunks(pb.MATRIX_KIND_MEAN, name, "", mean):
                    yield {"chunk": chunk}
            if pb.MATRIX_KIND_CORRELATION in kinds:
                for chunk in chunks(pb.MATRIX_KIND_CORRELATION, name, "", matrix(name, name)):
                    yield {"chunk": chunk}
        for first, second in pairs:
            for kind in (pb.MATRIX_KIND_COVARIANCE, pb.MATRIX_KIND_WHITENED):
                if kind in kinds:
                    for chunk in chunks(kind, first, second, matrix(first, second)):
                        yield {"chunk": chunk}


def shape(name: str) -> pb.LayerShape:
    channels, size, groups = LAYERS[name]
    return pb.LayerShape(name=name, channels=channels, height=size, width=size, groups=groups)


def matrix(first: str, second: str) -> np.ndarray:
    """What the server sends for two layers: noise, stronger in 16 blocks, and a dead channel."""
    rows, columns = LAYERS[first][0], LAYERS[second][0]
    values = np.random.default_rng(rows + columns).normal(0, 0.02, (rows, columns))
    blocks = np.equal.outer(np.arange(rows) * 16 // rows, np.arange(columns) * 16 // columns)
    values[blocks] *= 3
    if first == second:
        np.fill_diagonal(values, 1.0)
    if first == "conv1c":
        values[DEAD] = 0
    if second == "conv1c":
        values[:, DEAD] = 0
    return values


def summary(model, pairs, images, stage) -> pb.AnalysisSummary:
    return pb.AnalysisSummary(
        model=model,
        weights_sha256="ab" * 32,
        stage=stage,
        images=images,
        tolerance=1e-6,
        elapsed_ns=1_500_000_000,
        layers=[
            pb.LayerSummary(
                layer=shape(name),
                samples=images * size**2,
                varying_channels=channels - (name == "conv1c"),
                rank=channels - 2 * (name == "conv1c"),
            )
            for name, (channels, size, _) in LAYERS.items()
        ],
        pairs=[
            pb.PairSummary(
                pair=pb.LayerPair(first=first, second=second),
                samples=images * LAYERS[first][1] ** 2,
                best_groups=16,
                scores=[
                    pb.BlockScore(groups=g, ratio=1 + g / 10, energy=1 / g, fit=0.5, deviations=6)
                    for g in (2, 3, 4, 8, 16)
                ]
                + [pb.BlockScore(groups=96, ratio=float("inf"), energy=1, fit=1, deviations=9)],
            )
            for first, second in pairs
        ],
    )


def chunks(kind, first: str, second: str, values: np.ndarray):
    rows, columns = values.shape
    flat = values.reshape(-1)
    for offset in range(0, flat.size, CHUNK_ELEMENTS):
        yield pb.MatrixChunk(
            kind=kind,
            first=first,
            second=second,
            rows=rows,
            columns=columns,
            offset=offset,
            data=flat[offset : offset + CHUNK_ELEMENTS].astype("<f8").tobytes(),
        )
