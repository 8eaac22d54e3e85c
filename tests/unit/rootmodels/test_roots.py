"""Filter groups for any network: those of the paper's variants follow from their originals."""

from collections.abc import Sequence

import pytest

from rootmodels.cost import network_cost
from rootmodels.families.nin import NIN
from rootmodels.families.resnet50 import RESNET50
from rootmodels.family import Variant
from rootmodels.layer import IMAGES, Layer
from rootmodels.layers import network_layers
from rootmodels.model_graph import graph_content, read_graph
from rootmodels.roots import RootsError, RootTopology, groups_at, rooted, why_not
from rootmodels.variants import get_variant
from tests.support.model_files import conv


def exported(name: str) -> tuple[Layer, ...]:
    """The layers of a variant as they come back from a model file."""
    variant = get_variant(name)
    layers = network_layers(variant)
    family = NIN if variant.family == "nin" else RESNET50
    return read_graph(graph_content(layers), family.image_size, len(family.classes))


@pytest.mark.parametrize(
    "variant",
    [one for one in (*NIN.variants, *RESNET50.variants) if one.topology != "orig"],
    ids=lambda one: one.name,
)
def test_the_papers_variants_follow_from_their_originals(variant: Variant) -> None:
    assert variant.topology != "orig"
    found = rooted(exported(f"{variant.family}-orig"), variant.topology, variant.degree)
    expected = network_cost(variant)
    assert {layer.name: layer.groups for layer in found.layers} == {
        cost.layer.name: cost.layer.groups for cost in expected.layers
    }
    assert (found.params, found.macs) == (expected.params, expected.macs)
    assert found.layers == exported(variant.name)


@pytest.mark.parametrize(
    ("topology", "groups"),
    [("root", [8, 4, 2, 1, 1]), ("tree", [8, 16, 32, 64, 128]), ("col", [8, 8, 8, 8, 8])],
)
def test_the_degree_by_depth(topology: RootTopology, groups: list[int]) -> None:
    assert [groups_at(topology, 8, stage) for stage in range(5)] == groups


def small(*middle: Layer) -> tuple[Layer, ...]:
    """A stem of 8 channels, ``middle``, a mean and a linear layer."""
    return (
        conv("stem", IMAGES, 3, 8, 32, 3),
        *middle,
        Layer("mean", "global_avg_pool", 32, 8, 8, 1, (middle[-1].name,)),
        Layer("head", "linear", 1, 8, 7, 1, ("mean",), bias=True),
    )


def test_the_last_one_is_mixed_by_the_linear_layer() -> None:
    assert why_not(small(conv("x", "stem", 8, 8, 32, 3))) == {"stem": "sees the images", "x": ""}


CHAIN = (conv("a", "stem", 8, 8, 32, 3), conv("b", "a", 8, 8, 32, 3))


def test_what_is_not_chosen_mixes_the_groups() -> None:
    assert why_not(small(*CHAIN))["a"] == "no 1x1 mixes its groups before b"
    assert why_not(small(*CHAIN), "a") == {"stem": "not chosen", "a": "", "b": "not chosen"}


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        ([conv("x", "stem", 8, 8, 32, 1)], "1x1"),
        ([conv("x", "stem", 8, 8, 32, 3, groups=2)], "in 2 groups already"),
        (
            [conv("x", "stem", 8, 8, 32, 3), conv("y", "x", 8, 8, 32, 1, groups=2)],
            "no 1x1 mixes its groups before y",
        ),
        # Mixed on one way, and not on the way around it.
        (
            [
                conv("x", "stem", 8, 8, 32, 3),
                conv("y", "x", 8, 8, 32, 1),
                Layer("sum", "add", 1, 8, 8, 32, ("y", "x")),
                conv("z", "sum", 8, 8, 32, 3),
            ],
            "no 1x1 mixes its groups before z",
        ),
    ],
)
def test_why_a_convolution_cannot_be_grouped(middle: Sequence[Layer], reason: str) -> None:
    assert why_not(small(*middle))["x"] == reason


def test_what_ends_without_a_layer_that_mixes_is_not_grouped() -> None:
    layers = (
        conv("stem", IMAGES, 3, 8, 32, 3),
        conv("x", "stem", 8, 8, 32, 3),
        Layer("mean", "global_avg_pool", 32, 8, 8, 1, ("x",)),
    )
    assert why_not(layers)["x"] == "nothing mixes its groups before the end"


def test_images_that_are_only_scaled_are_seen() -> None:
    scaled = Layer("scaled", "affine", 1, 3, 3, 32, (IMAGES,), bias=True)
    layers = (scaled, conv("x", "scaled", 3, 9, 32, 3), conv("y", "x", 9, 9, 32, 1))
    assert why_not(layers)["x"] == "sees the images"


def test_a_convolution_whose_channels_do_not_divide_stays_whole() -> None:
    layers = small(
        conv("a", "stem", 8, 12, 32, 3), conv("b", "a", 12, 16, 32, 1),
        conv("c", "b", 16, 16, 32, 3), conv("d", "c", 16, 8, 32, 1),
    )  # fmt: skip
    found = {one.layer.name: one for one in rooted(layers, "col", 8).groupings}
    assert (found["a"].groups, found["c"].groups) == (1, 8)
    assert found["a"].reason == "12 channels do not divide into 8 groups"


@pytest.mark.parametrize(
    ("degree", "glob", "words"),
    [
        (1, "*", "degree 1 came, expected 2 to 1024"),
        (2, "conv*", "no convolution's name is like 'conv*'; there are: stem, a, b"),
        (2, "stem", "nothing can be grouped as root-2: stem: sees the images; a, b: not chosen"),
        (3, "b", "b: 8 channels do not divide into 3 groups"),
    ],
)
def test_refusals(degree: int, glob: str, words: str) -> None:
    with pytest.raises(RootsError) as caught:
        rooted(small(*CHAIN), "root", degree, glob)
    assert words in str(caught.value)
