"""Model files: what is written is read again, and whatever else comes is refused with where and why."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from rootmodels.cost import network_cost
from rootmodels.model import Model
from rootmodels.model_file import (
    model_names,
    names_with_weights,
    open_weights,
    read_model,
    write_model,
)
from rootmodels.parameters import load_network
from rootmodels.variants import UnknownVariantError
from rootmodels.weights_info import PRETRAINED_DIR, WeightsError, weights_path
from tests.support.model_files import (
    CLASSES,
    all_kinds,
    conv,
    model_of,
    random_parameters,
    simple_layers,
    write_small,
)


def without_paths(model: Model) -> Model:
    layers = tuple(replace(layer, path="") for layer in model.layers)
    return replace(model, layers=layers)


@pytest.mark.parametrize("layers", [simple_layers(), all_kinds()], ids=["simple", "all kinds"])
def test_a_model_comes_back_as_it_was_written(tmp_path: Path, layers: Any) -> None:
    model = model_of("my-net", layers, family="mine", topology="root", degree=4)
    parameters = random_parameters(layers)
    path = weights_path("my-net", tmp_path)
    write_model(path, model, parameters)
    read = read_model(path)
    assert without_paths(read) == model
    assert read.crop == Fraction(7, 8)
    variant, info = open_weights(path)
    assert (variant.name, variant.family, variant.topology, variant.degree) == (
        "my-net", "mine", "root", 4,
    )  # fmt: skip
    assert (info.accuracy, info.test_images, info.classes) == (0.75, 1000, CLASSES)
    assert network_cost(variant).params == sum(
        parameters[layer.name].weight.size + layer.out_channels
        for layer in layers
        if layer.has_weights
    )
    network = load_network(path, variant)
    assert network.layers == read.layers
    for name, expected in parameters.items():
        np.testing.assert_array_equal(network.parameters[name].weight, expected.weight)
        np.testing.assert_array_equal(network.parameters[name].bias, expected.bias)


def test_a_model_without_more_is_its_own_family(tmp_path: Path) -> None:
    path = write_small(tmp_path, model_of("my-net", accuracy=None, crop=Fraction(1)))
    variant, info = open_weights(path)
    assert (variant.family, variant.topology, info.accuracy) == ("my-net", "orig", None)
    assert variant.home is not None
    assert variant.home.short_side(32) == 32


def test_models_are_found_beside_weights_and_other_peoples_files(tmp_path: Path) -> None:
    write_small(tmp_path, model_of("zebra"))
    write_small(tmp_path, model_of("ant"))
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    (tmp_path / "nin-orig.safetensors").write_bytes(
        weights_path("nin-orig", PRETRAINED_DIR).read_bytes()
    )
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "zebra.calibration.json").write_text("{}")
    assert model_names(tmp_path) == ["ant", "zebra"]
    assert names_with_weights(tmp_path) == ["nin-orig", "ant", "zebra"]
    assert names_with_weights(tmp_path, ["zebra"]) == ["zebra"]
    assert model_names(PRETRAINED_DIR) == []
    with pytest.raises(UnknownVariantError, match="no variant is called 'yak'"):
        names_with_weights(tmp_path, ["yak"])
    with pytest.raises(WeightsError, match="no weights of a known variant, and no model file"):
        names_with_weights(tmp_path / "nowhere")


def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    model, parameters = model_of("my-net"), random_parameters(simple_layers())
    path = weights_path("my-net", tmp_path)
    with pytest.raises(WeightsError, match="a file of my-net has another name"):
        write_model(tmp_path / "net.safetensors", model, parameters)
    with pytest.raises(WeightsError, match="name is 'nin-orig', a variant of the family nin"):
        write_model(weights_path("nin-orig", tmp_path), replace(model, name="nin-orig"), parameters)
    with pytest.raises(WeightsError, match=r"missing: graph\.linear\.bias, graph\.linear\.weight"):
        write_model(path, model, {k: v for k, v in parameters.items() if k != "linear"})
    with pytest.raises(WeightsError, match=r"not written: accuracy is 75\.0, expected 0 to 1"):
        write_model(path, replace(model, accuracy=75.0), parameters)
    parameters["linear"].bias[2] = np.nan
    with pytest.raises(WeightsError, match=r"graph\.linear\.bias has values that are not finite"):
        write_model(path, model, parameters)
    assert list(tmp_path.iterdir()) == []


def test_a_wide_network_that_a_machine_holds_is_taken(tmp_path: Path) -> None:
    """The limits are above what is served: 1,024 channels of 32 x 32 pixels."""
    layers = (conv("big", "images", 3, 1024, 32, 3), *simple_layers(width=1024)[1:])
    layers = (layers[0], replace(layers[1], inputs=("big",)), *layers[2:])
    path = write_small(tmp_path, model_of("big-net", layers))
    assert read_model(path).name == "big-net"
