"""What can be said of the engines for CUDA without a GPU."""

import numpy as np
import pytest
import torch

from rootmodels.check_images import check_images
from rootmodels.weights_info import weights_path
from rootserve.server.engines import torch_cuda
from rootserve.server.engines.base import EngineError, LoadSpec
from rootserve.server.engines.choice import check_logits
from rootserve.server.engines.registry import get_loader
from rootserve.server.engines.torch_cuda import (
    HALVED_BYTES,
    CudaGraphsEngine,
    ReducedNetwork,
    bucket,
    parts,
)
from rootserve.server.engines.torch_eager import build_module
from tests.support import fake_cuda

SPEC = LoadSpec("nin-root-16", weights_path("nin-root-16"), "cpu", threads=2)


def test_engines_refuse_the_other_device() -> None:
    with pytest.raises(EngineError, match="cuda-graphs runs on a GPU, not on cpu"):
        get_loader("cuda-graphs")(SPEC)
    count = torch.cuda.device_count()
    with pytest.raises(EngineError, match=f"no device cuda:{count}"):
        get_loader("cuda-graphs")(LoadSpec("nin-orig", None, f"cuda:{count}", 0))


@pytest.mark.parametrize(
    ("rows", "size"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (31, 32), (32, 32), (33, 64)]
)
def test_a_batch_is_filled_up_to_a_power_of_two(rows: int, size: int) -> None:
    assert bucket(rows) == size


@pytest.mark.parametrize("row_bytes", [1, HALVED_BYTES // 64, HALVED_BYTES])
def test_the_halves_are_the_batch(row_bytes: int) -> None:
    for rows in range(1, 130):
        found = parts(rows, row_bytes)
        assert [row for part in found for row in range(part.start, part.stop)] == list(range(rows))
        assert len(found) == (2 if rows > 1 and rows * row_bytes >= HALVED_BYTES else 1)
        # No more is computed than for the batch as a whole.
        assert sum(bucket(part.stop - part.start) for part in found) <= bucket(rows)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_reduced_network_normalises_in_fp32(precision: str) -> None:
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    network = ReducedNetwork.from_folded(SPEC.network())
    assert isinstance(network, ReducedNetwork)
    network.reduce(torch.device("cpu"), dtype)
    images = torch.from_numpy(check_images(32))
    with torch.inference_mode():
        assert network.mean.dtype == torch.float32
        assert network.normalise(images).dtype == dtype
        logits = network(images).float().numpy()
        expected = build_module(SPEC)(images).numpy()
    check_logits(logits, expected, "bf16" if precision == "bf16" else "fp16")
    assert np.abs(logits - expected).max() > 1e-4


@pytest.mark.parametrize("halved_bytes", [HALVED_BYTES, 1])
def test_graphs_give_each_batch_its_own_logits(
    halved_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that fill a graph and that do not, of both types, whole and in halves, in turn."""
    images = check_images(16)
    with torch.inference_mode():
        expected = build_module(SPEC)(torch.from_numpy(images)).numpy()
    fake_cuda.install(monkeypatch)
    monkeypatch.setattr(torch_cuda, "HALVED_BYTES", halved_bytes)
    network = ReducedNetwork.from_folded(SPEC.network())
    assert isinstance(network, ReducedNetwork)
    engine = CudaGraphsEngine(network.reduce(torch.device("cpu"), torch.float32), "fp32")
    given = []
    for first, rows in ((0, 4), (4, 3), (0, 8), (9, 1), (8, 7), (2, 4), (0, 16)):
        part = slice(first, first + rows)
        given += [
            (part, engine.run(images[part])),
            (part, engine.run(images[part].astype(np.float32))),
        ]
    # At the end, so that an answer which a later batch overwrites is seen.
    for part, logits in given:
        np.testing.assert_allclose(logits, expected[part], atol=1e-4)
