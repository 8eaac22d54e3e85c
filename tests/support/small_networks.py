"""Small torch modules, each with something that networks are made of."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE = 32

Net = nn.Sequential


def conv(channels: int, filters: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, filters, kernel, **{"padding": kernel // 2, **options})


def head(channels: int) -> Net:
    return Net(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


class Body(nn.Module):
    """A convolution, what ``body`` makes of its maps, and a linear layer."""

    def __init__(
        self, body: Callable[[nn.Module, Tensor], Tensor], filters: int = 8, **parts: nn.Module
    ) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.head = head(filters)
        self.parts = nn.ModuleDict(parts)
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(self, self.stem(images)))
        return logits


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = Net(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        scale = self.fc(x.mean((2, 3))).view(len(x), -1, 1, 1)
        return x * scale.expand_as(x)


class Scaled(nn.Module):
    """Maps times a factor for each channel, and numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(8, 1, 1))
        self.register_buffer("shift", torch.rand(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = 0.5 - self.gamma * x / 3
        result: Tensor = -y + self.shift - 2 * x
        return result


class Standardised(nn.Module):
    """A convolution whose weights are normalised whenever it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(x, weight / weight.std(), padding=1)


def _shuffled(_: nn.Module, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    first, second = x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w).chunk(2, 1)
    return torch.cat((second, first[:, 1:3], first.relu()), dim=1)


def _changed_in_place(_: nn.Module, x: Tensor) -> Tensor:
    y = x.view(x.shape)
    functional.relu_(x)
    return y + x


def _twice(net: nn.Module, x: Tensor) -> Tensor:
    parts: Any = net.parts
    result: Tensor = parts["norm"](parts["conv"](parts["conv"](x)))
    return result


def _before_and_after(_: nn.Module, x: Tensor) -> Tensor:
    return x.relu() - x.sigmoid() * x


def _padded(net: nn.Module, x: Tensor) -> Tensor:
    parts: Any = net.parts
    x = functional.max_pool2d(functional.pad(x, (0, 1, 0, 1), value=float("-inf")), 3, 2)
    result: Tensor = parts["conv"](functional.pad(x, (0, 1, 2, 0)))
    return functional.avg_pool2d(functional.pad(result, (1, 1, 1, 1)), 3)


def _channels_one_by_one(_: nn.Module, x: Tensor) -> Tensor:
    parts = [x[:, index].unsqueeze(1) * (index + 1) for index in range(3)]
    return torch.cat([*parts, *x.split([3, 2, 3], 1)[1:]], 1)


def networks() -> Iterator[tuple[str, nn.Module]]:
    """Modules for images [N, 3, 32, 32] and five classes, with a name."""
    parts: dict[str, nn.Module] = {
        "rectangular": Net(
            nn.Conv2d(8, 6, (1, 5), padding=(0, 2)), nn.Conv2d(6, 8, (4, 3), (2, 1), padding=1)
        ),
        "dilated groups": conv(8, 8, dilation=2, groups=4, padding=2, bias=False),
        "same": Net(
            conv(8, 8, 4, padding="same", dilation=3), nn.ZeroPad2d((0, 1, 1, 2)), conv(8, 8)
        ),
        "normalised": Net(conv(8, 8), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU(inplace=True)),
        "before activation": Net(
            nn.BatchNorm2d(8), nn.ReLU(), conv(8, 8), nn.BatchNorm2d(8, affine=False)
        ),
        "activation between": Net(conv(8, 8), nn.SiLU(), nn.BatchNorm2d(8)),
        "hard": Net(
            nn.ReLU6(), conv(8, 8), nn.Hardswish(), conv(8, 8), nn.Hardsigmoid(), nn.Hardtanh(0, 6)
        ),
        "soft": Net(
            nn.GELU(), conv(8, 8), nn.GELU("tanh"), conv(8, 8), nn.Sigmoid(), nn.Identity()
        ),
        "leaky": Net(
            nn.LeakyReLU(0.1), conv(8, 8), nn.LeakyReLU(0.2, inplace=True), conv(8, 8), nn.PReLU()
        ),
        "pooled": Net(nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(3, 2, 1)),
        "pooled at the edge": Net(
            nn.AvgPool2d(5, 4, 2, ceil_mode=True, count_include_pad=False),
            nn.AvgPool2d(2, 3, 1, ceil_mode=True),
            nn.MaxPool2d(2, 1, dilation=2),
        ),
        "adaptive": Net(
            nn.AdaptiveAvgPool2d((8, 4)), nn.AdaptiveAvgPool2d((3, 7)), nn.AdaptiveMaxPool2d((1, 7))
        ),
        "squeezed": SqueezeExcite(),
        "scaled": Scaled(),
        "standardised": Standardised(),
        "shuffle": Net(nn.ChannelShuffle(2), nn.Dropout2d(0.5), conv(8, 8)),
    }
    for name, part in parts.items():
        yield name, Body(lambda net, x: net.parts["part"](x), part=part)
    yield "shuffled by hand", Body(_shuffled, 10)
    yield "changed in place", Body(_changed_in_place)
    yield "two uses", Body(_twice, conv=conv(8, 8), norm=nn.BatchNorm2d(8))
    yield "before and after", Body(_before_and_after)
    yield "padded", Body(_padded, conv=conv(8, 8, padding=0))
    yield "channels", Body(_channels_one_by_one)
    yield (
        "strides without weights",
        Body(lambda _, x: x[:, :, ::2, ::3] * x.amax((2, 3), keepdim=True)),
    )
    yield "vectors", Net(
        conv(3, 4, 5, stride=4), nn.Flatten(), nn.Linear(256, 12, bias=False), nn.BatchNorm1d(12),
        nn.ReLU(), nn.Dropout(), nn.Unflatten(1, (3, 2, 2)), conv(3, 6), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip
    yield (
        "maps at the end",
        Net(conv(3, 8), nn.ReLU(), conv(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


def trained(module: nn.Module) -> nn.Module:
    """``module`` with statistics, and weights of a normalisation, that are not those of a new one."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_(0, 0.2, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
                if part.affine:
                    part.weight.uniform_(0.5, 1.5, generator=generator)
                    part.bias.normal_(0, 0.2, generator=generator)
    return module.eval()
