"""Sums that a client sends to be derived, over gRPC."""

import re
from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pytest

from rootserve.v1 import analysis_pb2 as pb
from tests.support.analysis_calls import Answer, stub
from tests.support.server_process import ServerProcess, running_server


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server("--models", "nin-orig", "--engine", "fake", "--device", "cpu") as server:
        yield server


def derive_refusal(
    server: ServerProcess, *requests: pb.DeriveRequest
) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        list(stub(server).Derive(iter(requests), timeout=60))
    assert isinstance(caught.value, grpc.Call)
    return caught.value.code(), caught.value.details()


def small_sums(**changes: object) -> list[pb.DeriveRequest]:
    """Sums of one layer with two channels."""
    header = {
        "model": "m",
        "images": 2,
        "layers": [pb.LayerShape(name="a", channels=2, height=2, width=2, groups=1)],
    }
    pieces = [
        pb.MatrixChunk(kind=pb.MATRIX_KIND_MEAN, first="a", rows=1, columns=2, data=bytes(16)),
        pb.MatrixChunk(
            kind=pb.MATRIX_KIND_SCATTER,
            first="a",
            rows=2,
            columns=2,
            data=np.eye(2).astype("<f8").tobytes(),
        ),
    ]
    return [
        pb.DeriveRequest(sums=pb.Sums(**{**header, **changes})),
        *(pb.DeriveRequest(chunk=piece) for piece in pieces),
    ]


OPTIONS = pb.DeriveRequest(options=pb.DeriveOptions())
NAN = pb.DeriveRequest(
    chunk=pb.MatrixChunk(
        kind=pb.MATRIX_KIND_MEAN,
        first="a",
        rows=1,
        columns=2,
        data=np.full(2, np.nan).astype("<f8").tobytes(),
    )
)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (list, "expected options as the first message"),
        (lambda: [OPTIONS], "no sums came"),
        (lambda: [OPTIONS, *small_sums()[1:]], "expected sums, and chunks after them"),
        (lambda: [OPTIONS, *small_sums()[:2]], "scatter a ended after 0 values, expected 4"),
        (lambda: [OPTIONS, small_sums()[0], NAN], "not finite"),
        (lambda: [OPTIONS, *small_sums(), small_sums()[1]], "from 0 came, expected from 2"),
        (lambda: [OPTIONS, *small_sums(images=0)], "sums of 0 images came"),
        (lambda: [OPTIONS, *small_sums(layers=[])], "expected at least one"),
        (
            lambda: [OPTIONS, *small_sums(), *small_sums(model="n")],
            "sums of m .* and of n .* came",
        ),
        (
            lambda: [
                OPTIONS,
                *small_sums(
                    layers=[pb.LayerShape(name="a", channels=2**16, height=1, width=1, groups=1)]
                ),
            ],
            "at most .* are taken",
        ),
    ],
)
def test_bad_sums_are_refused(
    server: ServerProcess, make: Callable[[], list[pb.DeriveRequest]], text: str
) -> None:
    code, details = derive_refusal(server, *make())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert re.search(text, details), details


def test_sums_alone_are_derived(server: ServerProcess) -> None:
    requests = [OPTIONS, *small_sums(), *small_sums()]
    answer = Answer(stub(server).Derive(iter(requests), timeout=60))
    assert answer.summary.images == 4
    assert answer.summary.layers[0].samples == 16
    assert answer.summary.layers[0].rank == 2
