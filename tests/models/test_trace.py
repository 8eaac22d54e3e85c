"""Any torch module becomes layers that give its logits on both engines, or is refused where it stands."""

from collections.abc import Callable

import numpy as np
import openvino as ov
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from rootmodels.cost import layer_cost
from rootmodels.layer import Layer
from rootmodels.model import Model
from rootmodels.network import Network
from rootmodels.parameters import FoldedNetwork
from rootmodels.trace.errors import TraceError
from rootmodels.trace.module import Traced, trace_module
from rootserve.server.engines.openvino_convolution import FloatArithmetic
from rootserve.server.engines.openvino_cpu import build_network
from tests.support.small_networks import SIZE, Body, Net, conv, head, networks, trained

NETWORKS = dict(networks())


def folded(traced: Traced) -> FoldedNetwork:
    model = Model(
        "traced",
        traced.layers,
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        traced.image_size,
        tuple(f"class {index}" for index in range(traced.classes)),
    )
    return FoldedNetwork(model.variant, traced.image_size, traced.layers, traced.parameters)


def openvino_logits(network: FoldedNetwork, images: Tensor) -> Tensor:
    core = ov.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(build_network(network, FloatArithmetic()), "CPU", options)
    rows = [np.array(compiled(row[None].numpy())[0]) for row in images]
    return torch.from_numpy(np.concatenate(rows))


def kinds(layers: tuple[Layer, ...]) -> list[str]:
    return [
        layer.kind if layer.activation == "none" else f"{layer.kind}+{layer.activation}"
        for layer in layers
    ]


# What torch says of how it pads is not about this code.
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_layers_of_a_module_give_its_logits(name: str) -> None:
    torch.manual_seed(0)
    module = trained(NETWORKS[name])
    traced = trace_module(module, SIZE)
    images = torch.randn(3, 3, SIZE, SIZE)
    network = folded(traced)
    with torch.inference_mode():
        expected = module(images)
        training_form = Network(network.variant)
        training_form.load_state_dict({k: torch.tensor(v) for k, v in traced.tensors.items()})
        for found in (
            training_form.eval()(images),
            training_form.fold()(images),
            Network.from_folded(network)(images),
            openvino_logits(network, images),
        ):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        with FlopCounterMode(display=False) as counter:
            module(images[:1])
    assert expected.std() > 1e-3
    assert 2 * sum(layer_cost(layer).macs for layer in traced.layers) == counter.get_total_flops()


def test_layers_are_few_and_have_the_names_of_their_modules() -> None:
    module = Net()
    module.add_module("first", Net(conv(3, 8, bias=False), nn.BatchNorm2d(8, 1e-3), nn.ReLU6()))
    module.add_module("second", Net(nn.BatchNorm2d(8), nn.GELU()))
    module.add_module("head", head(8))
    layers = trace_module(module, SIZE).layers
    assert kinds(layers) == ["conv+relu6", "affine+gelu", "global_avg_pool", "linear"]
    assert [layer.name for layer in layers] == ["first.0", "second.0", "head.0", "head.2"]
    assert (layers[0].epsilon, layers[0].bias, layers[3].bias) == (1e-3, False, True)
    # It is as it was.
    assert module.training


def test_only_what_alone_follows_is_put_together() -> None:
    layers = trace_module(NETWORKS["before and after"], SIZE).layers
    assert kinds(layers)[:3] == ["conv", "identity+relu", "identity+sigmoid"]
    layers = trace_module(NETWORKS["two uses"], SIZE).layers
    assert [bool(layer.norm) for layer in layers if layer.kind == "conv"] == [False, False, True]


class Branching(Body):
    def forward(self, images: Tensor) -> Tensor:
        if images.sum() > 0:
            return super().forward(images)
        return super().forward(-images)


class Several(Body):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(images), images


def body(function: Callable[[Tensor], Tensor], filters: int = 8) -> nn.Module:
    return Body(lambda _, x: function(x), filters)


GROUP_NORM = Body(lambda net, x: net.parts["n"](x), n=nn.GroupNorm(2, 8))


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (GROUP_NORM, r"group_norm .*'parts.n' \(GroupNorm\): no layer does this; use batch norm"),
        (body(functional.elu), r"elu at .*small_networks.py:\d+ .*: no layer does this; use ReLU, leaky"),
        (
            Body(lambda net, x: net.parts["p"](x), p=nn.PReLU(8)),
            r"prelu .*'parts.p' \(PReLU\): it has a slope for each channel, .*num_parameters=1",
        ),
        (body(lambda x: functional.leaky_relu(x, -2.0)), "its slope is -2, expected 0 to 1"),
        (
            body(lambda x: functional.interpolate(x, scale_factor=2)),
            r"upsample_nearest2d at .*small_networks.py:\d+ .*; no layer makes maps larger: bring the other",
        ),
        (
            body(lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear")),
            r"upsample_bilinear2d at .*small_networks.py:\d+ .*; no layer makes maps larger",
        ),
        (
            Body(lambda net, x: net.parts["t"](x), t=nn.ConvTranspose2d(8, 8, 2, 2)),
            r"conv_transpose2d .*'parts.t' \(ConvTranspose2d\).*or use a convolution that is not transposed",
        ),
        (Body(lambda net, x: net.parts["n"](x), n=nn.InstanceNorm2d(8)), "instance_norm .*use batch norm"),
        (body(lambda x: functional.pixel_shuffle(x, 2), 2), "pixel_shuffle .*no layer makes maps larger"),
        (body(lambda x: x @ x.transpose(2, 3)), "matmul at .*attention and products of maps"),
        (body(lambda x: x.permute(0, 2, 3, 1), 32), r"permute at .*makes \[2, 32, 32, 8\].* keep maps"),
        (body(lambda x: functional.layer_norm(x.permute(0, 2, 3, 1), [8]), 32), "layer_norm at .* use batch"),
        (body(lambda x: x * x[:, :1]), "mul at .*expected the same, or one pixel"),
        (body(lambda x: x + torch.ones(32, 32)), r"add at .*constant of shape \[32, 32\]"),
        (
            body(lambda x: functional.pad(x, (1, 1, 1, 1), mode="reflect")),
            r"pad at .*\(reflect\), expected a constant",
        ),
        (body(lambda x: functional.pad(x, (1, 1)) + 1), "takes a map with padding of 0; padding goes"),
        (body(lambda x: functional.conv2d(x, x[:1].reshape(8, 8, 4, 32))), "expected"),
        (
            body(lambda x: functional.batch_norm(x, None, None, training=True)),
            "statistics of the images at hand",
        ),
        (body(lambda x: functional.dropout(x, training=True)), "drops values at random"),
        (body(lambda x: functional.avg_pool2d(x, 2, divisor_override=3)), "divisor of its own"),
        (body(lambda x: functional.adaptive_max_pool2d(x, 5)), "5x5 of 32x32, expected a divisor"),
        (body(lambda x: x.clamp(-1, 1)), "holds values to -1 to 1"),
        (body(lambda x: x.mean(1, keepdim=True), 1), r"mean at .*dimensions \[1\]"),
        (body(lambda x: x.flip(0)), "flip at"),
        (
            Branching(lambda _, x: x),
            r"torch.export cannot follow the module at .*test_trace.py:\d+: .* must not depend",
        ),
        (Several(lambda _, x: x), "gives tuple for images .*, expected logits"),
        (Net(conv(3, 5)), r"gives a tensor \[2, 5, 32, 32\] for images"),
        (Net(conv(4, 5)), "does not take images .*: RuntimeError"),
        (Net(head(3), nn.Softmax(1)), "softmax .* leave it out, what is served are logits"),
    ],
)  # fmt: skip
def test_what_is_no_layer_is_refused_where_it_stands(module: nn.Module, words: str | None) -> None:
    with pytest.raises(TraceError, match=words):
        trace_module(module, SIZE)
