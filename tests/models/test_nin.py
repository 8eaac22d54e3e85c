import pytest
import torch
from torch import nn

from rootmodels.cost import network_cost
from rootmodels.families.nin import NIN
from rootmodels.family import Variant
from rootmodels.layer import IMAGES, find_layer
from rootmodels.network import Network
from rootmodels.variants import get_variant


def images(rows: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (rows, 3, 32, 32), dtype=torch.uint8, generator=generator)


def lived_in(variant: Variant) -> Network:
    """A module whose normalisations hold statistics and scales as after some training."""
    torch.manual_seed(1)
    model = Network(variant)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.2)
            module.momentum = 0.3
    model.train()
    with torch.no_grad():
        for seed in range(3):
            model(images(8, seed))
    return model.eval()


@pytest.mark.parametrize("variant", NIN.variants, ids=lambda variant: variant.name)
class TestEveryVariant:
    @torch.inference_mode()
    def test_folding_keeps_the_outputs(self, variant: Variant) -> None:
        model = lived_in(variant)
        batch = images(4)
        unfolded = model(batch)
        folded = model.fold()(batch)
        assert unfolded.abs().max() > 0.1
        torch.testing.assert_close(folded, unfolded, rtol=1e-5, atol=1e-5)

    def test_the_folded_module_has_the_parameters_that_cost_counts(self, variant: Variant) -> None:
        model = Network(variant).fold()
        assert sum(p.numel() for p in model.parameters()) == network_cost(variant).params

    @torch.inference_mode()
    def test_the_products_it_computes_are_those_that_cost_counts(self, variant: Variant) -> None:
        counted: dict[str, int] = {}

        def count(name: str):
            def hook(conv: nn.Conv2d, _inputs: object, output: torch.Tensor) -> None:
                pixels = output.shape[2] * output.shape[3]
                counted[name] = conv.weight.numel() * pixels

            return hook

        model = Network(variant).fold()
        for name, module in model.body.named_children():
            module.conv.register_forward_hook(count(name))
        model(images(1))
        expected = {
            cost.layer.name: cost.macs for cost in network_cost(variant).layers if cost.macs
        }
        assert counted == expected


@torch.inference_mode()
def test_outputs_have_the_sizes_of_the_layer_table() -> None:
    model = Network(get_variant("nin-tree-4")).eval()
    values = {IMAGES: model.normalise(images(2))}
    for layer in model.layers:
        values[layer.name] = model.linear(layer, values)
        shape = (2, layer.out_channels, layer.size, layer.size)
        assert tuple(values[layer.name].shape) == shape[: 2 if layer.name == "pool3" else 4]


def test_he_initialisation_has_the_fan_of_one_group() -> None:
    torch.manual_seed(0)
    model = Network(get_variant("nin-root-4"))
    conv = model.body.conv2a.conv
    fan = 96 // 4 * 5 * 5
    assert conv.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.03)
    assert not conv.bias.any()


@torch.inference_mode()
def test_the_average_pool_leaves_padding_out() -> None:
    model = Network(get_variant("nin-orig"))
    pool2 = find_layer(model.layers, "pool2")
    ones = {"conv2c": torch.ones(1, 1, 16, 16)}
    assert torch.equal(model.linear(pool2, ones), torch.ones(1, 1, 8, 8))


@torch.inference_mode()
def test_an_image_of_the_mean_colour_is_zero_after_normalisation() -> None:
    model = Network(get_variant("nin-orig")).eval()
    seen = {}
    model.body.conv1a.conv.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    mean = torch.tensor(NIN.mean).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    model(mean)
    assert seen["x"].abs().max() == 0
    assert seen["x"].is_contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def test_uint8_and_float_images_give_the_same_logits() -> None:
    model = Network(get_variant("nin-root-8")).fold()
    batch = images(3)
    assert torch.equal(model(batch), model(batch.float()))
