"""The logits over gRPC are those of the module, for every variant and however batches are shared."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2_grpc

from rootmodels.cifar10 import read_cifar10
from rootmodels.families.nin import NIN
from rootmodels.weights_info import weights_path
from rootserve.server.engines.base import LoadSpec
from rootserve.server.engines.torch_eager import build_module
from tests.support.server_process import ServerProcess, infer_request, logits, running_server

NAMES = [variant.name for variant in NIN.variants]
RESNET50 = "resnet50-root-64"


@pytest.fixture(scope="module", params=["openvino", "torch"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    names = ",".join([*NAMES, RESNET50])
    arguments = (
        "--models",
        names,
        "--device",
        "cpu",
        "--engine",
        request.param,
        "--precision",
        "fp32",
    )
    with running_server(*arguments, "--max-delay-us", "50000") as started:
        yield started


@pytest.fixture(scope="module")
def images(request: pytest.FixtureRequest) -> NDArray[np.uint8]:
    return read_cifar10(request.getfixturevalue("sample_path"), "test").images


def module_logits(name: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    path = weights_path(name)
    module = build_module(LoadSpec(name, path if path.exists() else None, "cpu", 1))
    with torch.inference_mode():
        return module(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_modules_own_at_every_batch_size(
    server: ServerProcess, images: NDArray[np.uint8], name: str
) -> None:
    expected = module_logits(name, images[:32])
    assert np.ptp(expected) > 0.01
    for rows in (1, 7, 32):
        answer = server.infer(name, images[:rows])
        np.testing.assert_allclose(answer, expected[:rows], atol=1e-4)
    as_floats = images[:7].astype(np.float32) / 255
    np.testing.assert_allclose(server.infer(name, as_floats), expected[:7], atol=1e-4)


def test_a_residual_network_is_served_beside_the_others(
    server: ServerProcess, images: NDArray[np.uint8]
) -> None:
    large = np.random.default_rng(0).integers(0, 256, (8, 3, 224, 224), dtype=np.uint8)
    expected = module_logits(RESNET50, large)
    assert expected.shape == (8, 1000)
    for rows in (1, 8):
        answer = server.infer(RESNET50, large[:rows])
        np.testing.assert_allclose(answer, expected[:rows], atol=1e-4)
        small = server.infer("nin-root-4", images[:rows])
        np.testing.assert_allclose(small, module_logits("nin-root-4", images[:rows]), atol=1e-4)
    as_floats = large[:1].astype(np.float32) / 255
    np.testing.assert_allclose(server.infer(RESNET50, as_floats), expected[:1], atol=1e-4)


async def test_callers_who_share_a_batch_get_their_own_rows(
    server: ServerProcess, images: NDArray[np.uint8]
) -> None:
    # Both datatypes in one batch, and no request where another one would be right by accident.
    shares = [(0, 1, "u"), (1, 8, "f"), (8, 10, "u"), (10, 15, "f"), (15, 16, "u"), (16, 31, "u")]
    has_shared = []
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        # Of one model or the other: where batches do not pay, none is made. And they come together only
        # while the machine has time for their callers.
        for name in NAMES * 5:
            if any(has_shared) and name == NAMES[0]:
                break
            expected = module_logits(name, images[:31])

            async def ask(
                first: int, last: int, kind: str, name: str = name, expected: Any = expected
            ) -> None:
                rows = images[first:last]
                rows = rows if kind == "u" else rows.astype(np.float32) / 255
                response = await stub.ModelInfer(infer_request(name, rows))
                np.testing.assert_allclose(logits(response), expected[first:last], atol=1e-4)
                has_shared.append(response.parameters["batch_rows"].int64_param > last - first)

            # A full batch keeps the worker busy while the others come.
            busy = asyncio.ensure_future(stub.ModelInfer(infer_request(name, images[:32])))
            await asyncio.gather(*(ask(*share) for share in shares))
            await busy
    assert any(has_shared)


def test_the_front_process_never_loads_torch(server: ServerProcess) -> None:
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "numpy" in maps
    assert "libtorch" not in maps
    assert "openvino" not in maps
