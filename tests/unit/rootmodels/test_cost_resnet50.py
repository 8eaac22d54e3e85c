"""Cost of ResNet-50 against the paper's tables and against the layers of its Fig. 15."""

import pytest

from rootmodels.cost import LayerCost, network_cost
from rootmodels.variants import get_variant

# name, parameters, multiply-accumulates, and both as printed: in millions and in thousand millions.
TABLE = [
    ("resnet50-orig", 25_503_912, 3_857_973_248, "25.50", "3.858"),
    ("resnet50-root-2", 25_448_616, 3_684_564_992, "25.45", "3.685"),
    ("resnet50-root-4", 25_126_056, 3_366_649_856, "25.13", "3.367"),
    ("resnet50-root-8", 23_195_304, 2_860_875_776, "23.20", "2.861"),
    ("resnet50-root-16", 18_690_984, 2_434_580_480, "18.69", "2.435"),
    ("resnet50-root-32", 16_438_824, 2_221_432_832, "16.44", "2.221"),
    ("resnet50-root-64", 15_312_744, 2_114_859_008, "15.31", "2.115"),
    # Not in the paper; its printed figures are those that torchvision gives.
    ("resnet50-v1.5", 25_503_912, 4_089_184_256, "25.50", "4.089"),
]
ROWS = TABLE[:7]

MACS_3X3 = 115_605_504
PARAMS_3X3 = {2: 36_864, 3: 147_456, 4: 589_824, 5: 2_359_296}
# As printed for root-64: multiply-accumulates and parameters.
ROOT_64 = {
    2: (1_806_336, 576),
    3: (3_612_672, 4_608),
    4: (7_225_344, 36_864),
    5: (14_450_688, 294_912),
}


def layers(name: str) -> dict[str, LayerCost]:
    return {cost.layer.name: cost for cost in network_cost(get_variant(name)).layers}


@pytest.mark.parametrize(
    ("name", "params", "macs", "printed_params", "printed_macs"), TABLE, ids=[r[0] for r in TABLE]
)
def test_totals(name: str, params: int, macs: int, printed_params: str, printed_macs: str) -> None:
    cost = network_cost(get_variant(name))
    assert (cost.params, cost.macs) == (params, macs)
    assert f"{params / 1e6:.2f}" == printed_params
    assert f"{macs / 1e9:.3f}" == printed_macs
    # conv1 has a bias in the network that the paper measured, and fc in ours too.
    assert cost.flops_paper - cost.macs == 64 + 1000


@pytest.mark.parametrize("name", [row[0] for row in ROWS])
def test_every_3x3_convolution(name: str) -> None:
    degree = int(name.rpartition("-")[2]) if name != "resnet50-orig" else 1
    found = {n: cost for n, cost in layers(name).items() if n.endswith("_branch2b")}
    assert len(found) == 16
    for layer, cost in found.items():
        stage = int(layer[3])
        groups = max(1, degree // 2 ** (stage - 2))
        assert (cost.layer.groups, cost.layer.kernel) == (groups, 3)
        assert (cost.macs, cost.params) == (MACS_3X3 // groups, PARAMS_3X3[stage] // groups)
        if degree == 64:
            assert (cost.macs, cost.params) == ROOT_64[stage]


def test_the_layers_of_the_original_as_printed() -> None:
    cost = layers("resnet50-orig")
    assert cost["conv1"].flops_paper == 118_014_016
    assert cost["fc"].flops_paper == cost["fc"].params == 2_049_000
    first = {n: c.macs for n, c in cost.items() if n.endswith("a_branch2a")}
    assert list(first.values()) == [12_845_056, 25_690_112, 25_690_112, 25_690_112]
    projections = [c.macs for n, c in cost.items() if n.endswith("_branch1")]
    assert projections == [51_380_224, 102_760_448, 102_760_448, 102_760_448]
    others = {
        c.macs for n, c in cost.items() if c.layer.kernel == 1 and "branch2" in n and n not in first
    }
    assert others == {51_380_224}


def test_only_the_strided_blocks_differ_where_the_stride_is_on_the_3x3() -> None:
    there, here = layers("resnet50-v1.5"), layers("resnet50-orig")
    assert {name for name in there if there[name] != here[name]} == {
        f"res{stage}a_branch2{letter}" for stage in (3, 4, 5) for letter in "ab"
    }
    assert [there[f"res{stage}a_branch2a"].layer.size for stage in (3, 4, 5)] == [56, 28, 14]


def test_pooling_and_addition_cost_nothing() -> None:
    free = [cost for cost in layers("resnet50-orig").values() if not cost.layer.has_weights]
    assert len(free) == 18
    assert all(cost.params == cost.macs == cost.flops_paper == 0 for cost in free)


def test_images_and_classes_of_another_size() -> None:
    cost = network_cost(get_variant("resnet50-orig"), image_size=64, classes=10)
    by_name = {layer.layer.name: layer for layer in cost.layers}
    assert by_name["res5c"].layer.size == 2
    assert by_name["fc"].params == 2048 * 10 + 10
    assert cost.params == 25_503_912 - 990 * 2049
