"""Cost against the paper: every digit of Table 8, and of its layer table for the original."""

import pytest

from rootmodels.cost import network_cost
from rootmodels.families.nin import NIN
from rootmodels.variants import get_variant

# name, parameters, the paper's FLOPS (multiply-accumulates and one per bias), Table 8 as printed:
# FLOPS in 10^8 and parameters in 10^5.
TABLE_8 = [
    ("nin-orig", 966_986, 222_487_946, "2.22", "9.67"),
    ("nin-root-2", 736_586, 163_505_546, "1.64", "7.37"),
    ("nin-root-4", 455_498, 123_397_514, "1.23", "4.55"),
    ("nin-root-8", 314_954, 103_343_498, "1.03", "3.15"),
    ("nin-root-16", 244_682, 93_316_490, "0.93", "2.45"),
    ("nin-root-32", 209_546, 88_302_986, None, None),
    ("nin-tree-2", 487_754, 147_580_298, "1.48", "4.88"),
    ("nin-tree-4", 331_082, 115_434_890, "1.15", "3.31"),
    ("nin-tree-8", 252_746, 99_362_186, "0.99", "2.53"),
    ("nin-tree-16", 213_578, 91_325_834, "0.91", "2.14"),
    ("nin-col-2", 570_698, 152_888_714, "1.53", "5.71"),
    ("nin-col-4", 372_554, 118_089_098, "1.18", "3.73"),
    ("nin-col-8", 273_482, 100_689_290, "1.01", "2.73"),
    ("nin-col-16", 223_946, 91_989_386, "0.92", "2.24"),
]

# layer, parameters, multiply-accumulates
ORIG_LAYERS = [
    ("conv1a", 14_592, 14_745_600),
    ("conv1b", 30_880, 31_457_280),
    ("conv1c", 15_456, 15_728_640),
    ("pool1", 0, 0),
    ("conv2a", 460_992, 117_964_800),
    ("conv2b", 37_056, 9_437_184),
    ("conv2c", 37_056, 9_437_184),
    ("pool2", 0, 0),
    ("conv3a", 331_968, 21_233_664),
    ("conv3b", 37_056, 2_359_296),
    ("conv3c", 1_930, 122_880),
    ("pool3", 0, 0),
]


def test_the_table_has_every_variant() -> None:
    assert [row[0] for row in TABLE_8] == [variant.name for variant in NIN.variants]


@pytest.mark.parametrize(
    ("name", "params", "flops", "printed_flops", "printed_params"),
    TABLE_8,
    ids=[row[0] for row in TABLE_8],
)
def test_totals_are_those_of_table_8(
    name: str, params: int, flops: int, printed_flops: str | None, printed_params: str | None
) -> None:
    cost = network_cost(get_variant(name))
    assert cost.params == params
    assert cost.flops_paper == flops
    assert cost.flops_paper - cost.macs == 1_418
    if printed_flops is not None:
        assert f"{flops / 1e8:.2f}" == printed_flops
    if printed_params is not None:
        assert f"{params / 1e5:.2f}" == printed_params


def test_layers_of_the_original_are_those_of_the_paper() -> None:
    layers = network_cost(get_variant("nin-orig")).layers
    assert [(cost.layer.name, cost.params, cost.macs) for cost in layers] == ORIG_LAYERS


def test_maps_shrink_as_in_the_paper() -> None:
    sizes = {
        cost.layer.name: cost.layer.size for cost in network_cost(get_variant("nin-orig")).layers
    }
    assert [sizes[name] for name in ("conv1c", "pool1", "pool2", "conv3c", "pool3")] == [
        32,
        16,
        8,
        8,
        1,
    ]
