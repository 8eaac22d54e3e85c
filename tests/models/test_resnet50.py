"""ResNet-50 against torchvision's state dict layout and a plain implementation written out here."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from rootmodels.layer import find_layer
from rootmodels.network import Network
from rootmodels.parameters import random_network
from rootmodels.variants import RESNET50_VARIANTS, Variant, get_variant

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)

# Stage: blocks, width of the 3x3 convolution, stride of its first block.
STAGES = {1: (3, 64, 1), 2: (4, 128, 2), 3: (6, 256, 2), 4: (3, 512, 2)}
NORM = ("weight", "bias", "running_mean", "running_var")


def torchvision_layout(classes: int = 1000) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the state dict of torchvision.models.resnet50(num_classes=classes)."""

    def conv(name: str, norm: str, out: int, into: int, kernel: int) -> Iterator[tuple]:
        yield f"{name}.weight", (out, into, kernel, kernel)
        yield from ((f"{norm}.{part}", (out,)) for part in NORM)
        yield f"{norm}.num_batches_tracked", ()

    def tensors() -> Iterator[tuple]:
        yield from conv("conv1", "bn1", 64, 3, 7)
        into = 64
        for stage, (blocks, width, _) in STAGES.items():
            for block in range(blocks):
                name = f"layer{stage}.{block}"
                yield from conv(f"{name}.conv1", f"{name}.bn1", width, into, 1)
                yield from conv(f"{name}.conv2", f"{name}.bn2", width, width, 3)
                yield from conv(f"{name}.conv3", f"{name}.bn3", 4 * width, width, 1)
                if block == 0:
                    down = f"{name}.downsample"
                    yield from conv(f"{down}.0", f"{down}.1", 4 * width, into, 1)
                into = 4 * width
        yield "fc.weight", (classes, 2048)
        yield "fc.bias", (classes,)

    return dict(tensors())


def reference_logits(state: dict[str, Tensor], images: Tensor, variant: Variant) -> Tensor:
    """ResNet-50 from a state dict, written down plainly: nothing of it is this project's code."""

    def conv(x: Tensor, name: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        x = f.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)
        gamma, beta, mean, var = (state[f"{norm}.{part}"] for part in NORM)
        return f.batch_norm(x, mean, var, gamma, beta)

    x = (images / 255 - MEAN) / STD
    x = f.max_pool2d(f.relu(conv(x, "conv1", "bn1", 2)), 3, 2, 1)
    for (stage, (blocks, _, stage_stride)), groups in zip(
        STAGES.items(), variant.groups, strict=True
    ):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            stride = stage_stride if block == 0 else 1
            first, second = (1, stride) if variant.name == "resnet50-v1.5" else (stride, 1)
            y = f.relu(conv(x, f"{name}.conv1", f"{name}.bn1", first))
            y = f.relu(conv(y, f"{name}.conv2", f"{name}.bn2", second, groups))
            y = conv(y, f"{name}.conv3", f"{name}.bn3")
            if block == 0:
                x = conv(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = f.relu(x + y)
    return f.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


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


@pytest.mark.parametrize("variant", RESNET50_VARIANTS, ids=lambda variant: variant.name)
@torch.inference_mode()
def test_logits_are_those_of_a_plain_implementation_also_folded(variant: Variant) -> None:
    model = lived_in(variant)
    batch = images(1, 224) if variant.degree == 64 else images(2, 70)
    expected = reference_logits(model.state_dict(), batch.float(), variant)
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
    names = [variant.name for variant in RESNET50_VARIANTS]
    roots = [f"resnet50-root-{2**power}" for power in range(1, 7)]
    assert names == ["resnet50-orig", *roots, "resnet50-v1.5"]


def test_random_networks_are_the_same_every_time() -> None:
    first, second = (random_network(get_variant("resnet50-root-64")) for _ in range(2))
    for name, values in first.parameters.items():
        assert np.array_equal(values.weight, second.parameters[name].weight)
