"""One layer of a network as plain data, how to find one by its name, and whether layers fit together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    "conv",
    "linear",
    "affine",
    "max_pool",
    "avg_pool",
    "adaptive_avg_pool",
    "global_avg_pool",
    "add",
    "multiply",
    "concat",
    "slice",
    "shuffle",
    "flatten",
    "unflatten",
    "identity",
]
"""What a layer does; :class:`Layer` says it of each."""

Activation = Literal[
    "none",
    "relu",
    "leaky_relu",
    "relu6",
    "silu",
    "hardswish",
    "hardsigmoid",
    "gelu",
    "gelu_tanh",
    "sigmoid",
]
"""What follows a layer and is part of it; torch's functions of those names, "gelu_tanh" its approximation."""

Extent = int | tuple[int, int]
"""A height and a width; one number where they are the same."""

Padding = int | tuple[int, int] | tuple[int, int, int, int]
"""Pixels added above and below, left and right; or above, left, below, right."""

IMAGES = "images"
"""What the first layer takes: the normalised images."""

SLOPE = 0.01
"""What a leaky ReLU multiplies values below 0 by; torch's default."""

EPSILON = 1e-5
"""What a batch normalisation adds to the variance; torch's default."""

_WINDOWED = ("conv", "max_pool", "avg_pool")
_ON_MAPS = (*_WINDOWED, "adaptive_avg_pool", "global_avg_pool", "flatten", "shuffle")
_ON_VECTORS = ("linear", "unflatten")
_MOST_INPUTS = 256


@dataclass(frozen=True, slots=True)
class Layer:
    """One node of a network's graph.

    ``inputs`` name what it takes: other layers, or IMAGES. What the kinds do:

    - ``conv``, ``linear``: what torch's do; a linear layer counts as a 1x1 convolution of one pixel.
    - ``affine``: channel by channel, times a weight and plus a bias; those at ``path``, or those that a batch
      normalisation at ``norm`` comes to.
    - ``max_pool``, ``avg_pool``: windows of ``kernel``. ``adaptive_avg_pool``: to maps of ``size``, of any.
    - ``global_avg_pool``: the mean of each map, as a vector.
    - ``add``, ``multiply``: of two, alike in channels; the second may be of one pixel, which stands for all.
    - ``concat``: the channels of two or more, one behind the other.
    - ``slice``: ``out_channels`` channels from channel ``start`` on.
    - ``shuffle``: channel c of group g of ``groups`` becomes channel c * groups + g.
    - ``flatten``: maps as one vector, channel by channel and row by row; ``unflatten``: the other way.
    - ``identity``: nothing, but for the activation.

    Maps are [N, C, H, W]; after ``global_avg_pool``, ``flatten`` and ``linear`` there are vectors [N, C].
    ``size`` is the height and width of its output in pixels, 1 for vectors. Kernels, strides, dilations and
    sizes are one number where height and width agree, and so is padding: two ways to write a layer are one
    layer.
    """

    name: str
    """The paper's name, where it has one."""
    kind: Kind
    kernel: Extent
    in_channels: int
    out_channels: int
    size: Extent
    inputs: tuple[str, ...] = ()
    stride: Extent = 1
    padding: Padding = 0
    groups: int = 1
    ceil: bool = False
    """Whether the size of a pooling's output is rounded up."""
    relu: bool = False
    """Short for ``activation="relu"``, and true wherever that is."""
    bias: bool = False
    """Whether it has a bias of its own, besides the one that a folded normalisation leaves."""
    paper_bias: bool = False
    """Whether the paper's FLOPS count a bias that this network has not."""
    path: str = ""
    """Where it is in the torch module and in weights files; those of ResNet-50 are torchvision's."""
    norm: str = ""
    """Where a batch normalisation is, of a convolution or of an affine layer; "" if it has none."""
    activation: Activation = "none"
    """What follows."""
    dilation: Extent = 1
    """Pixels from one weight of the kernel to the next."""
    count_padding: bool = False
    """Whether an average counts what lies outside the map, as zeros."""
    start: int = 0
    """First channel of a slice."""
    epsilon: float = EPSILON
    """What its batch normalisation adds to the variance."""
    slope: float = SLOPE
    """Of a leaky ReLU that follows it."""

    def __post_init__(self) -> None:
        activation = "relu" if self.relu and self.activation == "none" else self.activation
        if self.relu and activation != "relu":
            raise ValueError(f"layer {self.name!r} has a relu and {activation}, expected one")
        for name, value in (
            ("activation", activation),
            ("relu", activation == "relu"),
            ("kernel", _short(self.kernel)),
            ("stride", _short(self.stride)),
            ("dilation", _short(self.dilation)),
            ("size", _short(self.size)),
            ("padding", _short(self.padding)),
        ):
            object.__setattr__(self, name, value)

    @property
    def has_weights(self) -> bool:
        """Whether it is a convolution or a linear layer."""
        return self.kind in ("conv", "linear")

    @property
    def has_parameters(self) -> bool:
        """Whether it has a weight and a bias: convolutions, linear and affine layers."""
        return self.has_weights or self.kind == "affine"

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """[out, in / groups, kh, kw] of a convolution, [out, in] of a linear one, [out] of an affine one."""
        if self.kind == "affine":
            return (self.out_channels,)
        if self.kind == "linear":
            return self.out_channels, self.in_channels
        return self.out_channels, self.in_channels // self.groups, *self.kernels

    @property
    def kernels(self) -> tuple[int, int]:
        """Height and width of ``kernel``."""
        return pair(self.kernel)

    @property
    def strides(self) -> tuple[int, int]:
        """Down and to the right."""
        return pair(self.stride)

    @property
    def dilations(self) -> tuple[int, int]:
        """Down and to the right."""
        return pair(self.dilation)

    @property
    def sizes(self) -> tuple[int, int]:
        """Height and width of the output."""
        return pair(self.size)

    @property
    def pixels(self) -> int:
        """Pixels of an output map."""
        return math.prod(self.sizes)

    @property
    def pads(self) -> tuple[int, int, int, int]:
        """Pixels added above, left, below and right."""
        if isinstance(self.padding, tuple) and len(self.padding) == 4:
            return self.padding
        height, width = pair(self.padding)
        return height, width, height, width


def pair(extent: Extent) -> tuple[int, int]:
    """``extent`` as height and width."""
    return (extent, extent) if isinstance(extent, int) else extent


def _short(value: int | tuple[int, ...]) -> int | tuple[int, ...]:
    """``value`` in as few numbers as say it: two ways to write an extent or a padding are one."""
    if isinstance(value, int):
        return value
    if len(value) == 4 and value[:2] == value[2:]:
        value = value[:2]
    return value[0] if len(set(value)) == 1 else tuple(value)


def find_layer(layers: Sequence[Layer], name: str) -> Layer | None:
    """The layer that is called ``name`` or has that path; None if there is none."""
    return next((layer for layer in layers if name and name in (layer.name, layer.path)), None)


def last_uses(layers: Sequence[Layer]) -> dict[str, tuple[str, ...]]:
    """By layer, the inputs that no later layer takes: their responses can be forgotten after it."""
    user = {name: layer.name for layer in layers for name in layer.inputs}
    return {
        layer.name: tuple(name for name in dict.fromkeys(layer.inputs) if user[name] == layer.name)
        for layer in layers
    }


def check_graph(layers: Sequence[Layer], image_size: int, classes: int) -> None:
    """Refuse layers that do not fit together: no engine could build them, and their cost would be wrong.

    Raises:
        ValueError: naming the first such layer, what it has and what was expected.
    """
    made: dict[str, tuple[int, Extent]] = {IMAGES: (3, image_size)}
    flat: set[str] = set()
    for layer in layers:
        _check_inputs(layer, made, flat)
        _check_numbers(layer)
        given = [made[name] for name in layer.inputs]
        channels, size = _in_channels(layer, given), given[0][1]
        filters = _out_channels(layer, channels, size)
        # Of two, the second is what the first is compared with, as a sum has always told it.
        for what, found, expected in (
            *(("inputs", given[0], other) for other in _wrong_partners(layer, given)),
            ("in_channels", layer.in_channels, channels),
            ("out_channels", layer.out_channels, filters),
            ("groups", layer.groups, math.gcd(layer.groups, channels, filters)),
            ("size", layer.size, output_size(layer, size)),
        ):
            if found != expected:
                raise ValueError(f"layer {layer.name!r} has {what} {found}, expected {expected}")
        if min(layer.sizes) < 1:
            raise ValueError(f"layer {layer.name!r} has nothing left of the image")
        made[layer.name] = layer.out_channels, layer.size
        if _makes_vectors(layer, flat):
            flat.add(layer.name)
    last = layers[-1].name if layers else IMAGES
    if last not in flat or made[last] != (classes, 1):
        raise ValueError(
            f"the last layer is {last!r}, expected a global average or a linear layer of {classes}"
        )


def output_size(layer: Layer, size: Extent) -> Extent:
    """Height and width of what ``layer`` makes of maps of ``size``, as torch has it."""
    if layer.kind in ("linear", "global_avg_pool", "flatten"):
        return 1
    if layer.kind in ("adaptive_avg_pool", "unflatten"):
        return layer.size
    if layer.kind not in _WINDOWED:
        return size
    top, left, bottom, right = layer.pads
    lengths = zip(
        *(pair(size), layer.kernels, layer.strides, layer.dilations),
        ((top, bottom), (left, right)),
        strict=True,
    )
    height, width = (_output_length(layer.ceil, *numbers) for numbers in lengths)
    return height if height == width else (height, width)


def _output_length(
    ceil: bool, length: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int]
) -> int:
    room = length + sum(pads) - dilation * (kernel - 1) - 1
    if not ceil:
        return room // stride + 1
    steps = -(-room // stride)
    # No window begins beyond the image.
    return steps + (steps * stride < length + pads[0])


def _check_inputs(layer: Layer, made: dict[str, tuple[int, Extent]], flat: set[str]) -> None:
    """Refuse a layer that does not take layers before it, or takes maps for vectors."""
    if layer.kind not in get_args(Kind) or layer.activation not in get_args(Activation):
        raise ValueError(
            f"layer {layer.name!r} is {layer.kind!r} with activation {layer.activation!r}, expected one "
            f"of {', '.join(get_args(Kind))}, with one of {', '.join(get_args(Activation))}"
        )
    wanted = {"add": 2, "multiply": 2, "concat": min(max(2, len(layer.inputs)), _MOST_INPUTS)}
    count = wanted.get(layer.kind, 1)
    if layer.name in made or len(layer.inputs) != count or not made.keys() >= {*layer.inputs}:
        raise ValueError(
            f"layer {layer.name!r} takes {layer.inputs}, expected a name of its own and {count} of "
            f"{', '.join(made)}"
        )
    if layer.has_weights and not layer.path:
        raise ValueError(f"layer {layer.name!r} has no path, expected one for its weights")
    if layer.kind == "affine" and (
        bool(layer.path) == bool(layer.norm) or layer.bias != bool(layer.path)
    ):
        raise ValueError(
            f"layer {layer.name!r} is affine with path {layer.path!r}, norm {layer.norm!r} and "
            f"{'a' if layer.bias else 'no'} bias, expected a path and a bias, or a norm"
        )
    vectors = [name for name in layer.inputs if name in flat]
    if layer.kind in (_ON_MAPS if vectors else _ON_VECTORS):
        raise ValueError(
            f"layer {layer.name!r} is {layer.kind}, expected a linear layer after a global average "
            "or another linear layer, and there alone"
        )
    if vectors and len(vectors) < len(layer.inputs):
        raise ValueError(
            f"layer {layer.name!r} takes {layer.inputs}, of which {vectors[0]!r} alone is a vector"
        )


def _check_numbers(layer: Layer) -> None:
    """Refuse numbers that no layer has, whatever comes in."""
    if layer.slope != SLOPE and layer.activation != "leaky_relu":
        raise ValueError(
            f"layer {layer.name!r} has slope {layer.slope} with activation {layer.activation!r}, expected "
            "it with leaky_relu alone"
        )
    channels = (layer.in_channels, layer.out_channels)
    if layer.kind in _WINDOWED and min(*layer.kernels, *layer.strides, *layer.dilations) < 1:
        raise ValueError(
            f"layer {layer.name!r} has kernel {layer.kernel}, stride {layer.stride}, dilation "
            f"{layer.dilation}, expected 1 or more"
        )
    if min(layer.pads) < 0 or min(channels) < 1 or layer.start < 0:
        raise ValueError(
            f"layer {layer.name!r} has padding {layer.padding}, channels {channels}, start "
            f"{layer.start}, expected none below 0, and channels"
        )
    if layer.kind in ("max_pool", "avg_pool"):
        most = [number // 2 for number in layer.kernels]
        if max(layer.pads[0::2]) > most[0] or max(layer.pads[1::2]) > most[1]:
            raise ValueError(
                f"layer {layer.name!r} has padding {layer.padding}, expected half its kernel at most"
            )
    even = layer.pads[:2] == layer.pads[2:]
    if not even and (layer.kind == "avg_pool" or layer.ceil):
        raise ValueError(
            f"layer {layer.name!r} has padding {layer.padding}, expected as much at both ends"
        )
    if layer.kind == "avg_pool" and layer.dilation != 1:
        raise ValueError(f"layer {layer.name!r} has dilation {layer.dilation}, expected 1")


def _in_channels(layer: Layer, given: Sequence[tuple[int, Extent]]) -> int:
    """Channels of what it takes; of all of them, if they are put together."""
    if layer.kind == "concat":
        return sum(channels for channels, _ in given)
    return given[-1][0]


def _out_channels(layer: Layer, channels: int, size: Extent) -> int:
    """Channels of what it makes of ``channels``, where it has no say in that; else its own."""
    match layer.kind:
        case "flatten":
            return channels * math.prod(pair(size))
        case "unflatten":
            return channels // layer.pixels if layer.pixels > 0 else 0
        case "slice":
            # What is left behind its start, at most.
            return min(layer.out_channels, channels - layer.start)
    return layer.out_channels if layer.has_weights else channels


def _wrong_partners(layer: Layer, given: Sequence[tuple[int, Extent]]) -> list[tuple[int, Extent]]:
    """Of the inputs ``given`` after the first, those that do not go together with it."""
    channels, size = given[0]
    if layer.kind == "concat":
        return [other for other in given[1:] if other[1] != size]
    return [other for other in given[1:] if other not in ((channels, size), (channels, 1))]


def _makes_vectors(layer: Layer, flat: set[str]) -> bool:
    if layer.kind in ("global_avg_pool", "linear", "flatten"):
        return True
    return layer.kind != "unflatten" and layer.inputs[0] in flat
