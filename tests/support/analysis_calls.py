"""Calls of the analysis service, and what they bring."""

from collections.abc import Iterable

import numpy as np

from rootmodels.analysis.moments import Array
from rootserve.v1 import analysis_pb2 as pb
from rootserve.v1 import analysis_pb2_grpc
from tests.support.server_process import (
    ServerProcess,
)

Key = tuple[int, str, str]


def stub(server: ServerProcess) -> analysis_pb2_grpc.AnalysisServiceStub:
    return analysis_pb2_grpc.AnalysisServiceStub(server.channel)


class Answer:
    """All messages of a call, put together."""

    def __init__(self, messages: Iterable[pb.AnalyzeResponse | pb.DeriveResponse]) -> None:
        self.kinds: list[str] = []
        self.matrices: dict[Key, Array] = {}
        self.progress: list[int] = []
        self.chunks: list[pb.MatrixChunk] = []
        data: dict[Key, bytes] = {}
        for message in messages:
            kind = message.WhichOneof("message")
            if kind not in self.kinds:
                self.kinds.append(kind)
            match kind:
                case "started":
                    self.started = message.started
                case "progress":
                    self.progress.append(message.progress.images_done)
                case "summary":
                    self.summary = message.summary
                case "sums":
                    self.sums = message.sums
                case "chunk":
                    piece = message.chunk
                    key = (piece.kind, piece.first, piece.second)
                    assert piece.offset * 8 == len(data.setdefault(key, b""))
                    data[key] += piece.data
                    assert message.ByteSize() < 2**21
                    self.chunks.append(piece)
                    if len(data[key]) == 8 * piece.rows * piece.columns:
                        values = np.frombuffer(data[key], "<f8")
                        self.matrices[key] = values.reshape(piece.rows, piece.columns)
        assert len(self.matrices) == len(data), "a matrix did not end"
