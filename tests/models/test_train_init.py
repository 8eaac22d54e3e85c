from pathlib import Path

import pytest
import torch
from torch import nn

from rootmodels.network import Network
from rootmodels.train_init import narrowed, start_from
from rootmodels.variants import get_variant
from rootmodels.weights import save_weights
from rootmodels.weights_info import WeightsError, WeightsInfo


@pytest.mark.parametrize(("groups", "to_groups"), [(1, 1), (1, 4), (2, 4), (2, 8)])
def test_a_narrowed_convolution_is_the_old_one_without_the_connections_between_groups(
    groups: int, to_groups: int
) -> None:
    torch.manual_seed(0)
    old = nn.Conv2d(16, 24, 3, groups=groups, bias=False)
    new = nn.Conv2d(16, 24, 3, groups=to_groups, bias=False)
    new.weight.data = narrowed(old.weight.data, groups, to_groups)
    images = torch.randn(1, 16, 5, 5)
    for group in range(to_groups):
        # Only the inputs of this group: then only connections within it count.
        inside = torch.zeros_like(images)
        mine = slice(group * 16 // to_groups, (group + 1) * 16 // to_groups)
        inside[:, mine] = images[:, mine]
        filters = slice(group * 24 // to_groups, (group + 1) * 24 // to_groups)
        torch.testing.assert_close(new(images)[:, filters], old(inside)[:, filters])


def weights(folder: Path, name: str) -> Path:
    path = folder / "w.safetensors"
    model = Network(get_variant(name))
    save_weights(path, model, WeightsInfo(name, 0.5, 100, 3, 0, "", {"epochs": 3}))
    return path


def test_another_variants_weights_keep_what_lies_within_the_groups(tmp_path: Path) -> None:
    path = weights(tmp_path, "nin-root-2")
    model = Network(get_variant("nin-tree-4"))
    assert start_from(path, model).variant == "nin-root-2"
    source, target = Network(get_variant("nin-root-2")), model.state_dict()
    start_from(path, source)
    for key, value in source.state_dict().items():
        if target[key].shape == value.shape:
            assert torch.equal(target[key], value), key
    conv = source.body.conv2a.conv
    assert torch.equal(target["body.conv2a.conv.weight"], narrowed(conv.weight, 2, 4))


def test_groups_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = weights(tmp_path, "nin-root-16")
    with pytest.raises(WeightsError, match="16 groups in nin-root-16, expected a divisor of the 8"):
        start_from(path, Network(get_variant("nin-root-8")))
