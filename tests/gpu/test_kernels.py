"""Our kernels on a CUDA device, and the engine that chooses among them and cuDNN's."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from rootmodels.cifar10 import read_cifar10
from rootmodels.weights_info import weights_path
from rootserve.server.engines.base import LoadSpec, Precision
from rootserve.server.engines.choice import check_logits
from rootserve.server.engines.registry import get_loader
from rootserve.server.engines.torch_eager import build_module
from rootserve.server.engines.torch_kernels import blocks, merges

pytestmark = [pytest.mark.quick, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize(
    ("channels", "groups", "kernel", "stride"), [(96, 16, 5, 1), (192, 1, 3, 1), (64, 4, 3, 2)]
)
def test_a_convolution_is_torchs(channels: int, groups: int, kernel: int, stride: int) -> None:
    from rootserve.server.engines import triton_kernels  # noqa: PLC0415 - needs Triton

    torch.manual_seed(0)
    x = torch.randn(4, channels, 17, 17, device="cuda").bfloat16()
    x = x.contiguous(memory_format=torch.channels_last)
    weight = (torch.randn(192, channels // groups, kernel, kernel, device="cuda") / 9).bfloat16()
    bias = torch.randn(192, device="cuda")
    expected = functional.relu(
        functional.conv2d(
            x.double(), weight.double(), bias.double(), stride, kernel // 2, 1, groups
        )
    )
    for merged in merges(groups, channels):
        packed = triton_kernels.pack(triton_kernels.merge_groups(weight, groups, merged), merged)
        for block in blocks(channels // merged, 192 // merged):
            shape = (kernel, stride, kernel // 2, True)
            found = triton_kernels.conv(x, packed, bias, shape, block)
            assert (found - expected).abs().max() < 0.01 * expected.max(), (merged, block)


@pytest.mark.parametrize("precision", ["bf16"])
def test_the_engine_computes_real_images(precision: Precision, sample_path: Path) -> None:
    images = read_cifar10(sample_path, "test").images[:40]
    path = weights_path("nin-root-16")
    with torch.inference_mode():
        cpu = build_module(LoadSpec("nin-root-16", path, "cpu", 0))
        expected = cpu(torch.from_numpy(images)).numpy()
    engine = get_loader("cuda-kernels")(LoadSpec("nin-root-16", path, "cuda:0", 0, precision))
    for rows in (40, 3):
        check_logits(engine.run(images[:rows]), expected[:rows], precision)
