"""What each engine and precision makes of real images, against the fp32 module."""

from dataclasses import dataclass, replace

import numpy as np
import openvino as ov
import pytest
import torch
from numpy.typing import NDArray

from rootmodels.calibration import accuracy_key
from rootmodels.cifar10 import read_cifar10
from rootmodels.processor import cpu_computes_bf16, int8_weight_bits
from rootmodels.weights_info import weights_path
from rootserve.server.engines import openvino_cpu
from rootserve.server.engines.base import EngineError, LoadSpec, Precision
from rootserve.server.engines.registry import get_loader
from rootserve.server.engines.torch_eager import build_module

IMAGES = 200
MODELS = ("nin-orig", "nin-root-16")


@dataclass(frozen=True)
class Tolerance:
    """Largest and mean error as shares of the largest logit, and how many images may change class."""

    largest: float
    mean: float
    changed: int


# fp32: the same sums in another order, nine layers of up to 2,400 terms: some 1e-6 of the largest.
# bf16: each response is rounded by at most 2^-9 = 0.2 %; over nine layers some 0.5 % of the largest logit.
# int8: a response is rounded by at most 0.2 % of the *largest* of its layer, and so is a weight, or by 0.4 %
# where it has 7 bits: some 1.5 %.
# The class changes only where the two largest logits were closer than that.
TOLERANCES: dict[str, Tolerance] = {
    "fp32": Tolerance(1e-5, 1e-6, 0),
    "bf16": Tolerance(0.01, 0.001, 2),
    "int8": Tolerance(0.03, 0.003, 4),
    "int8_7bit": Tolerance(0.04, 0.0045, 4),
}
COMPUTED: list[tuple[str, Precision]] = [
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
    ("torch", "fp32"),
    ("torch", "bf16"),
]


@pytest.fixture(scope="module")
def images(request: pytest.FixtureRequest) -> NDArray[np.uint8]:
    data = read_cifar10(request.getfixturevalue("sample_path"), "test")
    return data.images[:: len(data) // IMAGES][:IMAGES]


@pytest.fixture(scope="module", params=MODELS)
def expected(
    request: pytest.FixtureRequest, images: NDArray[np.uint8]
) -> tuple[LoadSpec, NDArray[np.float32]]:
    spec = LoadSpec(request.param, weights_path(request.param), "cpu", threads=2)
    with torch.inference_mode():
        return spec, build_module(spec)(torch.from_numpy(images)).numpy()


def check_rounded(logits: NDArray[np.float32], exact: NDArray[np.float32], key: str) -> None:
    error, tolerance = np.abs(logits - exact) / np.abs(exact).max(), TOLERANCES[key]
    assert error.max() < tolerance.largest
    assert error.mean() < tolerance.mean
    assert (logits.argmax(1) != exact.argmax(1)).sum() <= tolerance.changed


@pytest.mark.parametrize(("engine", "precision"), COMPUTED)
def test_logits_of_real_images_are_those_of_the_module(
    expected: tuple[LoadSpec, NDArray[np.float32]],
    images: NDArray[np.uint8],
    engine: str,
    precision: Precision,
) -> None:
    spec, exact = expected
    spec = replace(spec, precision=precision)
    if precision == "bf16" and not cpu_computes_bf16():
        with pytest.raises(EngineError, match="does not compute in bf16; use precision fp32"):
            get_loader(engine)(spec)
        return
    loaded = get_loader(engine)(spec)
    assert (loaded.name, loaded.precision) == (engine, precision)
    logits = np.concatenate(
        [loaded.run(images[first : first + 31]) for first in range(0, IMAGES, 31)]
    )
    assert logits.dtype == np.float32
    check_rounded(logits, exact, accuracy_key(precision, int8_weight_bits()))
    if precision != "fp32":
        assert np.abs(logits - exact).max() > 1e-3, "it was not rounded"


def test_weights_of_seven_bits_are_right_on_every_processor(
    expected: tuple[LoadSpec, NDArray[np.float32]], images: NDArray[np.uint8]
) -> None:
    spec, exact = expected
    loaded = openvino_cpu.load(replace(spec, precision="int8"), weight_bits=7)
    check_rounded(loaded.run(images), exact, "int8_7bit")


@pytest.mark.parametrize(("bits", "largest"), [(8, 127), (7, 63)])
def test_weights_have_the_bits_that_the_processor_adds_exactly(
    monkeypatch: pytest.MonkeyPatch, bits: int, largest: int
) -> None:
    monkeypatch.setattr(openvino_cpu, "int8_weight_bits", lambda: bits)
    spec = LoadSpec("nin-root-16", weights_path("nin-root-16"), "cpu", 1, "int8")
    weights = [
        node.data
        for node in openvino_cpu.network_graph(spec).get_ops()
        if node.get_type_name() == "Constant" and node.get_element_type() == ov.Type.i8
    ]
    assert len(weights) == 9
    assert {np.abs(one.astype(int)).max() for one in weights} == {largest}


def test_an_engine_keeps_no_rows_of_another_batch(
    expected: tuple[LoadSpec, NDArray[np.float32]], images: NDArray[np.uint8]
) -> None:
    """Batches of all sizes in turn, with one thread and with several."""
    spec, exact = expected
    for threads in (1, 2, 3):
        engine = get_loader("openvino")(replace(spec, threads=threads))
        answers = [(rows, engine.run(images[rows : 2 * rows])) for rows in (5, 1, 8, 2, 7, 3, 8)]
        for rows, logits in answers:
            np.testing.assert_allclose(logits, exact[rows : 2 * rows], atol=1e-4)


def test_pixels_may_be_floats(
    expected: tuple[LoadSpec, NDArray[np.float32]], images: NDArray[np.uint8]
) -> None:
    spec, exact = expected
    engine = get_loader("openvino")(spec)
    np.testing.assert_allclose(engine.run(images[:5].astype(np.float32)), exact[:5], atol=1e-4)
