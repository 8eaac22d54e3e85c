"""What cannot be traced, where that is in the user's code, and what can be done about it."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from types import TracebackType

import torch
from torch import fx

_TORCH = f"{Path(torch.__file__).parent}{os.sep}"
_IMPORTLIB = str(Path(importlib.__file__).parent)
_FRAME = re.compile(r'File "(.+)", line (\d+), in .+(?:\n\s*(.+))?')

_NORMS = "use batch normalisation, whose factors are known before an image comes"
_LOGITS = "leave it out, what is served are logits"
_ORDER = "keep maps in the order [N, C, H, W]"
_LARGER = (
    "no layer makes maps larger: bring the other branch to this size, by a stride or a pooling"
)
_ACTIVATION = "use ReLU, leaky ReLU, SiLU or another activation that layers have"
_ATTENTION = "attention and products of maps are no layers of a convolutional network"

HINTS = {
    **dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "rms_norm"), _NORMS),
    **dict.fromkeys(("softmax", "log_softmax"), _LOGITS),
    **dict.fromkeys(("permute", "transpose"), _ORDER),
    **dict.fromkeys(
        (
            "upsample_nearest2d",
            "_upsample_nearest_exact2d",
            "upsample_bilinear2d",
            "upsample_bicubic2d",
            "pixel_shuffle",
            "max_unpool2d",
        ),
        _LARGER,
    ),
    "conv_transpose2d": f"{_LARGER}; or use a convolution that is not transposed",
    **dict.fromkeys(
        ("elu", "selu", "celu", "mish", "softplus", "tanh", "softsign", "log_sigmoid"), _ACTIVATION
    ),
    **dict.fromkeys(("scaled_dot_product_attention", "matmul", "bmm", "einsum"), _ATTENTION),
    **dict.fromkeys(("conv1d", "conv3d"), "use a convolution of maps [N, C, H, W]"),
}


OTHER_HINT = "do it by operations that layers have (docs/import.md)"


class TraceError(ValueError):
    """A module cannot be traced; says which operation, where it is, and what can be done."""


def refusal(node: fx.Node, why: str, hint: str = "") -> TraceError:
    """That ``node`` is refused because of ``why``: with where it stands, and a ``hint`` at what helps."""
    text = f"{operation(node)} {place(node)}: {why}"
    return TraceError(f"{text}; {hint}" if hint else text)


def operation(node: fx.Node) -> str:
    """What ``node`` does, as torch calls it: "layer_norm"."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return str(getattr(node.target, "__name__", node.target))
    return str(schema.name).split("::")[-1].removesuffix("_")


def module_path(node: fx.Node) -> tuple[str, str]:
    """Path and class of the innermost module that ``node`` belongs to."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    return re.sub(r"@\d+", "", path), str(kind)


def place(node: fx.Node) -> str:
    """Where ``node`` is: the line of the user's code, and the module."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if not frame[0].startswith(_TORCH)]
    told = ""
    if own:
        file, line, code = own[-1]
        told = f"at {file}:{line}" + (f" ({code.strip()})" if code else "")
    path, kind = module_path(node)
    module = f"in module {path or 'itself'!r} ({kind.rpartition('.')[2]})" if kind else ""
    return " ".join(part for part in (told, module) if part) or "in the module"


def raised_at(traceback: TracebackType | None) -> str:
    """The last line outside of torch that ``traceback`` went through."""
    told = ""
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if not file.startswith((_TORCH, "<", _IMPORTLIB, str(Path(__file__).parent))):
            told = f" at {file}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return told


def one_line(error: BaseException) -> str:
    """What ``error`` says, in a line that fits into another."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:297]}..."
