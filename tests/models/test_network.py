"""What is true of the torch module whatever the family."""

import copy

import pytest
import torch

from rootmodels.network import Network
from rootmodels.variants import get_variant

NAMES = ["nin-root-4", "resnet50-root-64"]


def images(rows: int, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, 3, size, size), dtype=torch.uint8, generator=generator)


# What torch says of Python 3.13.0 itself is not about this code.
@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")
@pytest.mark.parametrize("name", NAMES)
def test_the_compiler_sees_one_graph(name: str) -> None:
    model = Network(get_variant(name), 32, classes=10)
    # The backend computes as it is: what is tried is whether anything in the module stops the tracing.
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="eager")
    for trains in (True, False):
        model.train(trains)
        with torch.set_grad_enabled(trains):
            torch.testing.assert_close(compiled(images(2)), model(images(2)))


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_a_copy_is_a_module_of_its_own(name: str) -> None:
    model = Network(get_variant(name), 32, classes=10).eval()
    expected = model(images(2))
    folded = copy.deepcopy(model).fold()
    torch.testing.assert_close(folded(images(2)), expected, rtol=1e-4, atol=1e-4)
    for parameter in folded.parameters():
        parameter.zero_()
    assert torch.equal(model(images(2)), expected)


@torch.inference_mode()
def test_responses_are_forgotten_once_nobody_needs_them() -> None:
    model = Network(get_variant("resnet50-root-64"), 32).eval()
    values = {"images": model.normalise(images(1))}
    most = 0
    for layer in model.layers:
        values[layer.name] = model.linear(layer, values)
        most = max(most, len(values))
        model.forget(layer, values)
    # A bottleneck's own, and what goes around it.
    assert most == 3
    assert list(values) == ["fc"]
