"""The folded parameters are those of the module, and files that do not fit are refused."""

import pytest
import torch

from rootmodels.families.nin import NIN
from rootmodels.family import Variant
from rootmodels.layers import network_layers
from rootmodels.network import Network
from rootmodels.parameters import load_network, random_network
from rootmodels.variants import get_variant
from rootmodels.weights import load_weights
from rootmodels.weights_info import WeightsError, weights_path

PATH = weights_path("nin-root-16")
VARIANT = get_variant("nin-root-16")


def test_folding_agrees_with_torch() -> None:
    folded = load_weights(PATH)[0].fold().state_dict()
    for name, conv in load_network(PATH, VARIANT).parameters.items():
        for part in ("weight", "bias"):
            expected = folded[f"body.{name}.conv.{part}"]
            torch.testing.assert_close(torch.from_numpy(getattr(conv, part)), expected)


def test_a_module_made_from_parameters_has_them_all() -> None:
    module = Network.from_folded(load_network(PATH, VARIANT))
    folded = load_weights(PATH)[0].fold()
    images = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(module(images), folded(images), atol=1e-4, rtol=0)


@pytest.mark.parametrize("variant", NIN.variants, ids=lambda variant: variant.name)
def test_random_parameters_have_the_fan_of_one_group(variant: Variant) -> None:
    parameters = random_network(variant).parameters
    for layer in network_layers(variant):
        if layer.kind != "conv":
            assert layer.name not in parameters
            continue
        weight = parameters[layer.name].weight
        fan = layer.in_channels // layer.groups * layer.kernel**2
        assert weight.shape == (
            layer.out_channels,
            layer.in_channels // layer.groups,
            layer.kernel,
            layer.kernel,
        )
        assert weight.std() == pytest.approx((2 / fan) ** 0.5, rel=0.1)
        assert not parameters[layer.name].bias.any()


def test_weights_of_another_variant_are_refused() -> None:
    with pytest.raises(WeightsError, match="holds weights of nin-root-16, not of nin-orig"):
        load_network(PATH, get_variant("nin-orig"))
