"""Which networks of torchvision and timm are imported: each traced, and held to its logits on both engines.

Weights are random, and the statistics of the normalisations those of random images, so that responses neither
grow nor vanish. Logits are divided by the largest of the module's before they are compared, if it is above 1.
MACs are held to those that torch's own counter finds in the module as it runs.

    python benchmarks/import_table.py --out docs/figures/import-table.md
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rootmodels.cost import layer_cost
from rootmodels.model import Model
from rootmodels.network import Network
from rootmodels.parameters import FoldedNetwork
from rootmodels.trace.errors import TraceError
from rootmodels.trace.module import Traced, trace_module
from rootmodels.trace.sources import make_module
from rootserve.server.engines.openvino_convolution import FloatArithmetic
from rootserve.server.engines.openvino_cpu import build_network, ov  # type: ignore[attr-defined]

TORCHVISION = (
    "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "vgg11_bn", "vgg16", "alexnet",
    "squeezenet1_1", "densenet121", "googlenet", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0",
    "shufflenet_v2_x1_0", "regnet_y_400mf", "convnext_tiny",
)  # fmt: skip
TIMM = (
    "seresnet18", "tf_efficientnet_b0", "mixnet_s", "ghostnet_100", "res2net50_26w_4s", "dla34", "dpn68",
    "xception41", "repvgg_a0", "ese_vovnet19b_dw", "cspdarknet53", "darknet53",
    "hrnet_w18_small", "resnetv2_50d_gn",
)  # fmt: skip
HEADER = (
    "| network | layers | MACs | torch's counter | off on torch | off on OpenVINO |\n"
    "|---|---|---|---|---|---|"
)

_IMAGES = 2
_SETTLING = 4


@dataclass(frozen=True, slots=True)
class Row:
    """What was found of one network; ``refusal`` if it is not imported."""

    name: str
    refusal: str = ""
    layers: int = 0
    macs: int = 0
    counted: int = 0
    errors: tuple[float, float] = (0.0, 0.0)

    def __str__(self) -> str:
        if self.refusal:
            return f"| {self.name} | refused: {self.refusal} | | | | |"
        counted = "the same" if self.macs == self.counted else f"{self.counted:,}"
        torch_off, openvino_off = (f"{error:.0e}" for error in self.errors)
        return f"| {self.name} | {self.layers} | {self.macs:,} | {counted} | {torch_off} | {openvino_off} |"


def row(name: str, size: int) -> Row:
    """Import the network called ``name`` for images of ``size``, and compare."""
    torch.manual_seed(0)
    module = make_module(name)
    _settle(module, size)
    try:
        traced = trace_module(module, size)
    except TraceError as error:
        return Row(name, _in_a_row(str(error)))
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(_IMAGES, 3, size, size, generator=generator)
    with torch.inference_mode():
        expected = module(images)
        with FlopCounterMode(display=False) as counter:
            module(images[:1])
        network = _folded(traced)
        found = Network.from_folded(network)(images), _openvino_logits(network, images)
    scale = max(1.0, float(expected.abs().max()))
    errors = [float((logits - expected).abs().max()) / scale for logits in found]
    return Row(
        name,
        layers=len(traced.layers),
        macs=sum(layer_cost(layer).macs for layer in traced.layers),
        counted=counter.get_total_flops() // 2,
        errors=(errors[0], errors[1]),
    )


def _settle(module: nn.Module, size: int) -> None:
    """Give normalisations the statistics of random images."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
            part.train()
    with torch.no_grad():
        module(torch.randn(_SETTLING, 3, size, size, generator=torch.Generator().manual_seed(0)))
    module.eval()


def _folded(traced: Traced) -> FoldedNetwork:
    classes = tuple(f"class {index}" for index in range(traced.classes))
    plain = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    model = Model("traced", traced.layers, *plain, traced.image_size, classes)
    return FoldedNetwork(model.variant, traced.image_size, traced.layers, traced.parameters)


def _openvino_logits(network: FoldedNetwork, images: Tensor) -> Tensor:
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    graph = build_network(network, FloatArithmetic())
    compiled = ov.Core().compile_model(graph, "CPU", options)
    rows = [np.array(compiled(image[None].numpy())[0]) for image in images]
    return torch.from_numpy(np.concatenate(rows))


def _in_a_row(text: str) -> str:
    """``text`` as a cell of a table, without the folder that packages are in."""
    for folder in sys.path:
        if folder:
            text = text.replace(f"{folder}/", "")
    return text.replace("|", "\\|")


def _rows(names: list[str], size: int) -> Iterator[Row]:
    for name in names:
        began = time.perf_counter()
        found = row(name, size)
        print(f"{found}  {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        yield found


def main() -> int:
    """Write the table; the exit status tells whether all that was imported is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="default: standard output")
    parser.add_argument("--image-size", type=int, default=224, metavar="PIXELS")
    parser.add_argument("names", nargs="*", metavar="torchvision:NAME|timm:NAME")
    args = parser.parse_args()
    usual = [*(f"torchvision:{name}" for name in TORCHVISION), *(f"timm:{name}" for name in TIMM)]
    rows = list(_rows(args.names or usual, args.image_size))
    text = "\n".join([HEADER, *map(str, rows)]) + "\n"
    if args.out:
        args.out.write_text(text)
    else:
        print(text, end="")
    right = all(each.macs == each.counted and max(each.errors) <= 1e-4 for each in rows)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
