"""A variant as a torch module, built from its layers.

One class for all families, in two forms. The training form has a batch normalisation after each
convolution; the inference form (:meth:`Network.fold`) has it multiplied into the convolutions. State dicts of
the training form have the names that the layers' paths say: for ResNet-50 they are torchvision's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rootmodels.family import Variant
from rootmodels.layer import IMAGES, Layer, last_uses
from rootmodels.layers import network_layers
from rootmodels.parameters import FoldedNetwork
from rootmodels.torch_layers import AnyNorm, Scale, activate, make_part, without_parameters
from rootmodels.variants import family_of


class Network(nn.Module):
    """A member of a family, channels-last.

    ``forward`` takes RGB images [N, 3, H, W] in 0..255, of any dtype, normalises them and returns
    logits [N, classes]. ``layers`` is what it is made of. With ``folded`` it is made in its inference form,
    whose parameters nobody has set yet.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        variant: Variant,
        image_size: int | None = None,
        classes: int | None = None,
        *,
        folded: bool = False,
    ) -> None:
        super().__init__()
        self.variant = variant
        self.layers = network_layers(variant, image_size, classes)
        family = family_of(variant)
        for name, values in (("mean", family.mean), ("std", family.std)):
            tensor = torch.tensor(values, device="cpu").view(1, 3, 1, 1)
            self.register_buffer(name, tensor, persistent=False)
        for layer in self.layers:
            self._make_parts(layer, folded=folded)
        self._last_uses = last_uses(self.layers)
        self._parts = self._find_parts()
        _to_channels_last(self)

    @classmethod
    def from_folded(cls, folded: FoldedNetwork) -> Network:
        """The inference form with the parameters of ``folded``."""
        classes = folded.layers[-1].out_channels
        # On no device: room would be taken, and numbers drawn, for what is replaced at once.
        with torch.device("meta"):
            network = cls(folded.variant, folded.image_size, classes, folded=True)
        state = {
            f"{layer.path or layer.norm}.{part}": torch.from_numpy(
                getattr(folded.parameters[layer.name], part)
            )
            for layer in network.layers
            if layer.has_parameters
            for part in ("weight", "bias")
        }
        network.load_state_dict(state, assign=True)
        _to_channels_last(network)
        return network.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, classes] of images [N, 3, H, W] in 0..255."""
        values = {IMAGES: self.normalise(images)}
        for layer in self.layers:
            x = self.linear(layer, values)
            values[layer.name] = activate(layer, x)
            self.forget(layer, values)
        return values[self.layers[-1].name]

    def normalise(self, images: Tensor) -> Tensor:
        """What the first layer takes: images [N, 3, H, W] in 0..255, normalised and channels-last."""
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        return x.contiguous(memory_format=torch.channels_last)

    def linear(self, layer: Layer, values: dict[str, Tensor]) -> Tensor:
        """What ``layer`` gives before its activation, if it has one: [N, C, H, W], or vectors [N, C].

        ``values`` has the responses of its inputs by their name, and those of IMAGES. What has nothing to
        compute may be a view of its input.
        """
        x = values[layer.inputs[0]]
        match layer.kind:
            case "conv" | "affine":
                part, norm = self._parts[layer.name]
                return norm(part(x))  # type: ignore[no-any-return]
            case "linear":
                return self._parts[layer.name][0](x)  # type: ignore[no-any-return]
            case "add" | "multiply":
                other = values[layer.inputs[1]]
                return x + other if layer.kind == "add" else x * other
            case "concat":
                return torch.cat([values[name] for name in layer.inputs], 1)
        return without_parameters(layer, x)

    def forget(self, layer: Layer, values: dict[str, Tensor]) -> None:
        """Take out of ``values`` what no layer after ``layer`` needs."""
        for name in self._last_uses[layer.name]:
            del values[name]

    def fold(self) -> Network:
        """Turn this module into its inference form, in place, and return it.

        The outputs agree with those of the training form in ``eval`` mode to about 1e-5.
        """
        self.eval()
        for layer in self.layers:
            part, norm = self._parts.get(layer.name, (None, None))
            if isinstance(norm, nn.BatchNorm2d):
                if isinstance(part, nn.Conv2d):
                    _attach(self, layer.path, fuse_conv_bn_eval(part, norm))
                    _attach(self, layer.norm, nn.Identity())
                else:
                    _attach(self, layer.norm, Scale.of(norm))
        self._parts = self._find_parts()
        _to_channels_last(self)
        return self

    def _find_parts(self) -> dict[str, tuple[nn.Module, nn.Module]]:
        """By layer, what has its weights, and its normalisation: found once, not at every call."""
        return {
            layer.name: (
                self.get_submodule(layer.path) if layer.path else nn.Identity(),
                self.get_submodule(layer.norm) if layer.norm else nn.Identity(),
            )
            for layer in self.layers
            if layer.has_parameters
        }

    def _make_parts(self, layer: Layer, *, folded: bool) -> None:
        """Give this module what ``layer`` has parameters in."""
        if not layer.has_parameters:
            return
        if layer.path:
            part = make_part(layer, bias=layer.bias or folded)
            _attach(self, layer.path, part)
            if layer.has_weights and not folded:
                _initialise(part, layer)
        if layer.norm:
            norm: nn.Module = nn.Identity()
            if not folded:
                make = nn.BatchNorm2d if layer.has_weights else AnyNorm
                norm = make(layer.out_channels, layer.epsilon)
            elif not layer.path:
                norm = Scale(layer.out_channels)
            _attach(self, layer.norm, norm)


def _attach(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put ``module`` at ``path`` below ``root``, with plain modules on the way there."""
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    root.add_module(name, module)


def _initialise(module: nn.Module, layer: Layer) -> None:
    """He et al. 2015: std = sqrt(gain / fan_in), the gain 2 where a ReLU follows and else 1.

    torch takes the fan from the weight's own shape, [out, in / groups, k, k], which is that of one group.
    """
    nonlinearity = "relu" if layer.relu else "linear"
    weight = module.get_parameter("weight")
    nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity=nonlinearity)  # type: ignore[arg-type]
    if layer.bias:
        nn.init.zeros_(module.get_parameter("bias"))


def _to_channels_last(module: nn.Module) -> None:
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
