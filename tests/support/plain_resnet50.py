"""ResNet-50 written down plainly, and torchvision's layout of its state dict: no code of the project."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as f

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)

# Stage: blocks, width of the 3x3 convolution, stride of its first block.
STAGES = {1: (3, 64, 1), 2: (4, 128, 2), 3: (6, 256, 2), 4: (3, 512, 2)}
State = dict[str, NDArray[np.generic]]
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


def state_dict(classes: int = 7) -> State:
    """Random tensors in that layout, the same ones every time."""
    rng = np.random.default_rng(0)
    state: State = {}
    for name, shape in torchvision_layout(classes).items():
        if name.endswith("num_batches_tracked"):
            state[name] = np.array(7, np.int64)
        elif len(shape) > 1:
            std = np.sqrt(1 / np.prod(shape[1:]))
            state[name] = rng.normal(0, std, shape).astype(np.float32)
        elif name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            state[name] = rng.uniform(0.8, 1.2, shape).astype(np.float32)
        else:
            state[name] = rng.normal(0, 0.1, shape).astype(np.float32)
    return state


def reference_logits(
    state: dict[str, Tensor], images: Tensor, groups: tuple[int, ...], *, stride_on_3x3: bool
) -> Tensor:
    """Logits of images [N, 3, H, W] in 0..255; ``groups`` are those of the 3x3 convolutions of each stage."""

    def conv(x: Tensor, name: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        x = f.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)
        gamma, beta, mean, var = (state[f"{norm}.{part}"] for part in NORM)
        return f.batch_norm(x, mean, var, gamma, beta)

    x = (images / 255 - MEAN) / STD
    x = f.max_pool2d(f.relu(conv(x, "conv1", "bn1", 2)), 3, 2, 1)
    for stage, (blocks, _, stage_stride) in STAGES.items():
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            stride = stage_stride if block == 0 else 1
            first, second = (1, stride) if stride_on_3x3 else (stride, 1)
            y = f.relu(conv(x, f"{name}.conv1", f"{name}.bn1", first))
            y = f.relu(conv(y, f"{name}.conv2", f"{name}.bn2", second, groups[stage - 1]))
            y = conv(y, f"{name}.conv3", f"{name}.bn3")
            if block == 0:
                x = conv(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = f.relu(x + y)
    return f.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])
