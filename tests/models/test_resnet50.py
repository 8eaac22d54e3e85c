"""ResNet-50 against torchvision's state dict layout and a plain implementation written out here."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from rootmodels.analysis.capture import Capture
from rootmodels.analysis.covariance import covariance
from rootmodels.analysis.layers import Stage, network_plan
from rootmodels.families.resnet50 import RESNET50
from rootmodels.family import Variant
from rootmodels.layer import find_layer
from rootmodels.layers import network_layers
from rootmodels.network import Network
from rootmodels.parameters import random_network
from rootmodels.variants import get_variant
from tests.support.plain_resnet50 import reference_logits, torchvision_layout


def lived_in(variant: Variant) -> Network:
    """A module of ten classes whose normalisations hold statistics and scales as after some training."""
    torch.manual_seed(1)
    model = Network(variant, classes=10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.2)
            module.momentum = 0.5
    model.train()
    with torch.no_grad():
        model(images(4, 48))
    return model.eval()


def images(rows: int, size: int = 224) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", ["resnet50-orig", "resnet50-v1.5"])
def test_the_state_dict_is_laid_out_as_torchvisions(name: str) -> None:
    state = Network(get_variant(name)).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == torchvision_layout()


@pytest.mark.parametrize("variant", RESNET50.variants, ids=lambda variant: variant.name)
@torch.inference_mode()
def test_logits_are_those_of_a_plain_implementation_also_folded(variant: Variant) -> None:
    model = lived_in(variant)
    batch = images(1, 224) if variant.degree == 64 else images(2, 70)
    on_3x3 = variant.name == "resnet50-v1.5"
    expected = reference_logits(
        model.state_dict(), batch.float(), variant.groups, stride_on_3x3=on_3x3
    )
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(model(batch), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(model.fold()(batch), expected, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_outputs_have_the_sizes_of_the_layer_table() -> None:
    for size in (224, 75):
        model = Network(get_variant("resnet50-v1.5"), size).eval()
        values = {"images": model.normalise(images(1, size))}
        for layer in model.layers:
            x = values[layer.name] = model.linear(layer, values)
            assert tuple(x.shape[1:]) in (
                (layer.out_channels, layer.size, layer.size),
                (layer.out_channels,),
            )


@torch.inference_mode()
def test_random_responses_neither_grow_nor_vanish() -> None:
    model = Network.from_folded(random_network(get_variant("resnet50-root-64")))
    values = {"images": model.normalise(images(1))}
    for layer in model.layers:
        x = model.linear(layer, values)
        values[layer.name] = f.relu(x) if layer.relu else x
        assert 0.2 < values[layer.name].square().mean().sqrt() < 5, layer.name


def test_he_initialisation_has_the_fan_of_one_group() -> None:
    model = Network(get_variant("resnet50-root-16"))
    weight = model.get_parameter("layer1.0.conv2.weight")
    assert weight.std().item() == pytest.approx((2 / (64 // 16 * 9)) ** 0.5, rel=0.05)
    assert model.get_submodule("layer1.0.conv2").bias is None


def test_layers_are_found_by_either_name() -> None:
    layers = Network(get_variant("resnet50-orig")).layers
    for paper, torchvision in (
        ("conv1", "conv1"),
        ("res2a_branch1", "layer1.0.downsample.0"),
        ("res3b_branch2b", "layer2.1.conv2"),
        ("res5c", "layer4.2"),
        ("fc", "fc"),
    ):
        layer = find_layer(layers, torchvision)
        assert layer is not None
        assert layer is find_layer(layers, paper)
        assert layer.name == paper
    assert find_layer(layers, "") is None


def test_the_names_of_the_family() -> None:
    names = [variant.name for variant in RESNET50.variants]
    roots = [f"resnet50-root-{2**power}" for power in range(1, 7)]
    assert names == ["resnet50-orig", *roots, "resnet50-v1.5"]


def test_random_networks_are_the_same_every_time() -> None:
    first, second = (random_network(get_variant("resnet50-root-64")) for _ in range(2))
    for name, values in first.parameters.items():
        assert np.array_equal(values.weight, second.parameters[name].weight)


def test_covariance_of_a_residual_network_equals_the_direct_computation() -> None:
    model = lived_in(get_variant("resnet50-root-16")).fold()
    batch = images(3, 64)
    pairs = [
        ("res2a_branch2a", "layer1.0.conv2"),
        ("res2a_branch2b", "res2a_branch2c"),
        ("conv1", "res3a_branch1"),
    ]
    plan = network_plan(network_layers(model.variant, 64), pairs)
    for stage in Stage:
        maps: dict[str, Tensor] = {}
        with torch.inference_mode():
            x = {"images": model.normalise(batch)}
            for layer in model.layers:
                before = model.linear(layer, x)
                x[layer.name] = f.relu(before) if layer.relu else before
                maps[layer.name] = x[layer.name] if stage is Stage.AFTER_RELU else before
        capture = Capture(model, plan, stage)
        capture.add(batch.numpy())
        sums = capture.sums()
        for pair in plan.pairs:
            size = max(maps[name].shape[2] for name in pair)
            a, b = (
                f.interpolate(maps[name].double(), (size, size))
                .movedim(1, -1)
                .flatten(0, 2)
                .numpy()
                for name in pair
            )
            both = np.cov(a, b, rowvar=False)
            expected = both[: a.shape[1], a.shape[1] :]
            error = np.linalg.norm(covariance(sums.pairs[pair]) - expected)
            assert error < 1e-6 * np.linalg.norm(expected), (stage, pair)
