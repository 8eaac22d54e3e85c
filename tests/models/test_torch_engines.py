"""What can be said of the compiled and the CUDA engine without the device they are for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rootmodels.check_images import check_images
from rootmodels.processor import cpu_computes_bf16
from rootmodels.weights_info import weights_path

# Imported before a test changes CXX, which the compiler reads when it is imported.
from rootserve.server.engines import torch_compiled, torch_cuda
from rootserve.server.engines.base import EngineError, LoadSpec, Precision
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


def test_the_compiled_engine_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(EngineError, match="needs a C\\+\\+ compiler, and no-such-compiler is not"):
        torch_compiled.load(SPEC)


# What the compiler warns of differs from version to version, and is not about this code.
@pytest.mark.filterwarnings("default")
def test_the_compiled_engine_computes_real_images_and_is_compiled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one precision alone, because compiling takes long. Tolerances of test_precisions.py."""
    images = check_images(32)
    with torch.inference_mode():
        expected = build_module(SPEC)(torch.from_numpy(images)).numpy()
    precision: Precision = "bf16" if cpu_computes_bf16() else "fp32"
    spec = replace(SPEC, precision=precision, cache=tmp_path)
    engine = get_loader("torch-compiled")(spec)
    logits = engine.run(images)
    error = np.abs(logits - expected) / np.abs(expected).max()
    if precision == "bf16":
        assert error.max() < 0.01
        assert 1e-5 < error.mean() < 0.001
    else:
        assert error.max() < 1e-5
    assert (logits.argmax(1) != expected.argmax(1)).sum() <= 1
    np.testing.assert_allclose(engine.run(images[:3].astype(np.float32)), logits[:3], atol=1e-3)

    # From here on there is no compiler: what is loaded was kept, and what was not kept is not loaded.
    monkeypatch.setenv("CXX", "no-such-compiler")
    np.testing.assert_array_equal(torch_compiled.load(spec).run(images), logits)
    others = [replace(spec, threads=1), replace(spec, cache=None)]
    others.append(replace(spec, weights=weights_path("nin-root-4"), model="nin-root-4"))
    if precision == "bf16":
        others.append(replace(spec, precision="fp32"))
    for other in others:
        with pytest.raises(EngineError, match="no-such-compiler"):
            torch_compiled.load(other)
    (package,) = (tmp_path / "compiled").iterdir()
    package.parent.chmod(0o777)
    with pytest.raises(EngineError, match="no-such-compiler"):
        torch_compiled.load(spec)  # others could have put it there
    package.parent.chmod(0o700)
    package.write_bytes(package.read_bytes()[:-100])
    with pytest.raises(EngineError, match="no-such-compiler"):
        torch_compiled.load(spec)


def test_engines_refuse_the_other_device() -> None:
    with pytest.raises(EngineError, match="torch-compiled runs on the cpu, not on cuda:0"):
        get_loader("torch-compiled")(LoadSpec("nin-orig", None, "cuda:0", 0))
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
