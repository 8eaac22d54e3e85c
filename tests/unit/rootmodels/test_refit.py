"""Layers for other images and classes, held to families that make their own for any."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from rootmodels.family import FamilyError
from rootmodels.layer import Layer, check_graph
from rootmodels.layers import network_layers
from rootmodels.model import Model
from rootmodels.model_content import read_content, write_content
from rootmodels.refit import head_of, resized, with_classes
from rootmodels.variants import VARIANTS
from tests.support.model_files import all_kinds, conv, model_of, simple_layers

SIZES = (32, 48, 64, 224)


def read(layers: Sequence[Layer]) -> Model:
    """A model of ``layers`` as it comes from its file."""
    return read_content(write_content(model_of("my-net", layers)))


@pytest.mark.parametrize("name", VARIANTS)
def test_layers_become_those_the_family_has(name: str) -> None:
    variant = VARIANTS[name]
    layers = network_layers(variant)
    for size in SIZES:
        assert resized(layers, size) == network_layers(variant, size)
    for classes in (2, 7, 1000):
        assert with_classes(layers, classes) == network_layers(variant, classes=classes)
    both = network_layers(variant, 64, 7)
    assert with_classes(resized(layers, 64), 7) == both


def test_a_model_is_for_other_images_and_classes_as_well() -> None:
    model = read(simple_layers())
    layers = network_layers(model.variant, 24, 3)
    assert [layer.size for layer in layers] == [24, 12, 12, 1, 1]
    assert layers[-1].out_channels == 3
    assert network_layers(model.variant) == model.layers


def test_every_kind_of_layer_is_resized() -> None:
    """The adaptive pooling in the middle makes the rest as it was."""
    model = read(all_kinds())
    layers = resized(model.layers, 48)
    check_graph(layers, 48, 7)
    sizes = {layer.name: layer.size for layer in layers}
    assert (sizes["uneven"], sizes["gate"], sizes["shrunk"]) == (24, 1, (3, 2))
    assert resized(layers, 32) == model.layers


def test_what_depends_on_the_size_of_its_images_is_refused() -> None:
    flat = Layer("flat", "flatten", 1, 16, 16 * 16 * 16, 1, ("pool",))
    last = Layer("last", "linear", 1, 16 * 16 * 16, 7, 1, ("flat",), bias=True, path="graph.last")
    variant = read((*simple_layers()[:2], flat, last)).variant
    with pytest.raises(
        FamilyError, match="my-net for images of 24 pixels: layer 'flat' has out_ch"
    ):
        network_layers(variant, 24)


def test_logits_of_several_layers_or_of_groups_have_no_head() -> None:
    mean, last = simple_layers()[-2:]
    grouped = (*simple_layers()[:-2], mean)
    assert head_of(simple_layers()) == {last.name}
    assert head_of(grouped) == frozenset()
    with pytest.raises(FamilyError, match=r"come from 'mean' \(global_avg_pool\), for 3 classes"):
        with_classes(grouped, 3)
    parted = (*grouped[:2], conv("conv2", "pool", 16, 16, 16, 1), replace(mean, inputs=("conv2",)))
    assert head_of(parted) == {"conv2", "mean"}
    assert with_classes(parted, 3)[-2].out_channels == 3
