"""Whose channels can be reordered: what has one order, and what has a fixed one."""

import numpy as np
import pytest

from rootmodels.layer import IMAGES, Layer
from rootmodels.layers import network_layers
from rootmodels.suggest.channels import channel_orders, find_spaces
from rootmodels.suggest.study import why_cannot_be_grouped
from rootmodels.variants import get_variant
from tests.support.model_files import conv


def ended(*middle: Layer) -> tuple[Layer, ...]:
    """A stem of 8 channels, ``middle``, a mean and a linear layer."""
    last = middle[-1]
    return (
        conv("stem", IMAGES, 3, 8, 32, 3),
        *middle,
        Layer("mean", "global_avg_pool", 32, last.out_channels, last.out_channels, 1, (last.name,)),
        Layer("head", "linear", 1, last.out_channels, 7, 1, ("mean",), bias=True),
    )


def add(name: str, *inputs: str, channels: int = 8) -> Layer:
    return Layer(name, "add", 1, channels, channels, 32, inputs)


def test_network_in_network_can_be_reordered_between_its_convolutions() -> None:
    spaces = find_spaces(network_layers(get_variant("nin-orig")))
    assert (spaces["pool1"].name, spaces["pool1"].fixed) == ("conv1c", "")
    assert spaces[IMAGES].fixed == "they are those of the images"
    assert spaces["conv3c"].fixed == "they are the logits"


def test_what_is_added_has_one_order() -> None:
    spaces = find_spaces(ended(conv("a", "stem", 8, 8, 32, 3), add("sum", "a", "stem")))
    assert {spaces[name].name for name in ("stem", "a", "sum", "mean")} == {"stem"}


def test_a_depthwise_convolution_follows_what_it_takes() -> None:
    spaces = find_spaces(ended(conv("deep", "stem", 8, 8, 32, 3, groups=8)))
    assert spaces["deep"].name == "stem"
    assert spaces["deep"].fixed == ""


def test_orders_go_through_a_concat_and_into_vectors() -> None:
    layers = (
        conv("a", IMAGES, 3, 2, 32, 3),
        conv("b", IMAGES, 3, 3, 32, 3),
        Layer("both", "concat", 1, 5, 5, 32, ("b", "a")),
        Layer("small", "adaptive_avg_pool", 16, 5, 5, (1, 2), ("both",)),
        Layer("flat", "flatten", 1, 5, 10, 1, ("small",)),
        Layer("head", "linear", 1, 10, 7, 1, ("flat",), bias=True),
    )
    orders = channel_orders(layers, {"a": np.array([1, 0]), "b": np.array([2, 0, 1])})
    assert orders["small"].tolist() == [2, 0, 1, 4, 3]
    assert orders["flat"].tolist() == [4, 5, 0, 1, 2, 3, 8, 9, 6, 7]
    assert orders["head"].tolist() == list(range(7))


@pytest.mark.parametrize(
    ("middle", "name", "reason"),
    [
        ([Layer("cut", "slice", 1, 8, 4, 32, ("stem",))], "stem", "cut cuts its channels"),
        (
            [Layer("turn", "shuffle", 1, 8, 8, 32, ("stem",), groups=2)],
            "stem",
            "turn shuffles its channels",
        ),
        ([conv("two", "stem", 8, 8, 32, 3, groups=2)], "stem", "two is in 2 groups"),
        (
            [
                conv("a", "stem", 8, 4, 32, 1),
                conv("b", "stem", 8, 4, 32, 1),
                Layer("both", "concat", 1, 8, 8, 32, ("a", "b")),
                add("sum", "both", "stem"),
            ],
            "a",
            "sum adds what other layers put together",
        ),
        (
            [
                conv("a", "stem", 8, 4, 32, 1),
                Layer("both", "concat", 1, 8, 8, 32, ("a", "a")),
                conv("x", "both", 8, 8, 32, 1, groups=4),
            ],
            "a",
            "x is in 4 groups",
        ),
    ],
)
def test_fixed_orders(middle: list[Layer], name: str, reason: str) -> None:
    layers = ended(*middle)
    assert find_spaces(layers)[name].fixed == reason
    with pytest.raises(ValueError, match=f"cannot be reordered: {reason}"):
        channel_orders(layers, {name: np.arange(4)})


def test_what_cannot_be_grouped_says_why() -> None:
    layers = ended(
        conv("a", "stem", 8, 4, 32, 1),
        Layer("both", "concat", 1, 12, 12, 32, ("a", "stem")),
        conv("x", "both", 12, 8, 32, 3),
        conv("x2", "x", 8, 8, 32, 1),
        conv("y", "x2", 8, 8, 32, 3),
        add("sum", "y", "x2"),
        conv("y2", "sum", 8, 1024, 32, 1),
        conv("z", "y2", 1024, 8, 32, 3),
    )
    assert why_cannot_be_grouped(layers) == {
        "stem": "sees the images",
        "a": "1x1",
        "x": "the channels that it takes cannot be reordered: both puts channels of several layers together",
        "x2": "1x1",
        "y": "what it takes and what it makes are added: they have one order",
        "y2": "1x1",
        "z": "9216 values lie under its kernel, expected at most 8192",
    }
