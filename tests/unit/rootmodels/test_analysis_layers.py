"""Which layers can be analysed, by which names, and which pairs are adjacent."""

from itertools import pairwise

import pytest

from rootmodels.analysis.layers import analysable_layers, network_plan
from rootmodels.analysis.sums import UnknownLayerError
from rootmodels.layers import network_layers
from rootmodels.variants import get_variant

NIN = network_layers(get_variant("nin-root-4"))
RESNET50 = network_layers(get_variant("resnet50-root-16"))
SMALL_RESNET50 = network_layers(get_variant("resnet50-root-16"), 64)


def test_a_chain_is_adjacent_throughout() -> None:
    names = [shape.name for shape in analysable_layers(NIN)]
    assert list(network_plan(NIN).pairs) == list(pairwise(names))


def test_adjacent_in_a_residual_network_is_what_is_inside_of_a_bottleneck() -> None:
    plan = network_plan(RESNET50)
    blocks = [
        f"res{stage}{letter}"
        for stage, count in zip((2, 3, 4, 5), (3, 4, 6, 3), strict=True)
        for letter in "abcdef"[:count]
    ]
    assert list(plan.pairs) == [
        (f"{block}_branch2{a}", f"{block}_branch2{b}") for block in blocks for a, b in ("ab", "bc")
    ]
    shape = plan.layer("res4f_branch2b")
    assert (shape.channels, shape.size, shape.groups) == (256, (14, 14), 4)


def test_layers_go_by_torchvisions_names_too() -> None:
    pairs = [("layer1.0.conv1", "res2a_branch2b"), ("conv1", "layer2.3.conv3")]
    plan = network_plan(SMALL_RESNET50, pairs, ["layer3.0.downsample.0"])
    assert plan.pairs == (("res2a_branch2a", "res2a_branch2b"), ("conv1", "res3d_branch2c"))
    assert [layer.name for layer in plan.layers] == [
        "conv1", "res2a_branch2a", "res2a_branch2b", "res3d_branch2c", "res4a_branch1",
    ]  # fmt: skip
    assert plan.layer("conv1").size == (32, 32)
    assert network_plan(NIN, [("body.conv1c.conv", "conv2a")]).pairs == (("conv1c", "conv2a"),)


@pytest.mark.parametrize("name", ["conv9", "res2a", "fc", "layer1.0", ""])
def test_what_is_no_convolution_is_refused(name: str) -> None:
    with pytest.raises(UnknownLayerError, match="no layer is called"):
        network_plan(RESNET50, [("conv1", name)])
