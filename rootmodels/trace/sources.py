"""Where a module comes from: one's own code, torchvision or timm."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from rootmodels.trace.errors import one_line, raised_at

FORMS = "MODULE:FACTORY, torchvision:NAME or timm:NAME"

_SHOWN = 4
"""A message about tensors that do not fit names so many of a kind."""


class SourceError(ValueError):
    """A module cannot be made; says of what, and what was expected."""


def make_module(source: str, classes: int | None = None) -> nn.Module:
    """The module that ``source`` names, with the weights that it is made with, in float32 and eval mode.

    Args:
        source: ``MODULE:FACTORY``, where FACTORY is called without arguments unless it is a module itself;
            ``torchvision:NAME`` or ``timm:NAME``, whose weights are random.
        classes: Number of logits of a network of torchvision or timm; without, what it has by itself.

    Raises:
        SourceError: if there is none, it cannot be made, or is no torch module.
    """
    place, colon, name = source.partition(":")
    if not (place and colon and name):
        raise SourceError(f"{source!r} came, expected {FORMS}")
    options = {} if classes is None else {"num_classes": classes}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if place == "torchvision":
                made = _torchvision(name, options)
            elif place == "timm":
                made = _package("timm").create_model(name, pretrained=False, **options)
            else:
                made = _own(place, name)
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(
            f"{source} cannot be made{raised_at(error.__traceback__)}: {type(error).__name__}: "
            f"{one_line(error)}"
        ) from error
    if not isinstance(made, nn.Module):
        raise SourceError(f"{source} gives {type(made).__name__}, expected a torch module")
    return made.float().eval()


def load_weights(module: nn.Module, path: Path) -> None:
    """Give ``module`` the tensors of the safetensors file at ``path``, which are those of its state dict.

    Raises:
        SourceError: naming the tensors that are missing, of another shape, or of no use.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise SourceError(
            f"{path} cannot be read ({one_line(error)}); expected a safetensors file with a state dict"
        ) from error
    own = module.state_dict()
    # How many batches a normalisation saw matters to nobody, and some files leave it out.
    counters = {name for name in own if name.endswith(".num_batches_tracked")}
    texts = [
        ("missing", own.keys() - tensors.keys() - counters),
        ("unexpected", tensors.keys() - own.keys()),
        (
            "of another shape",
            {
                name
                for name in own.keys() & tensors.keys()
                if own[name].shape != tensors[name].shape
            },
        ),
    ]
    if any(names for _, names in texts):
        told = "; ".join(f"{what}: {_list(names)}" for what, names in texts if names)
        raise SourceError(f"{path}: its tensors are not those of the module; {told}")
    module.load_state_dict(own | tensors)


def _own(place: str, name: str) -> Any:
    made = _import(place)
    for part in name.split("."):
        if not hasattr(made, part):
            raise SourceError(f"{place} has no {name!r}")
        made = getattr(made, part)
    return made if isinstance(made, nn.Module) or not callable(made) else made()


def _torchvision(name: str, options: dict[str, int]) -> Any:
    models = _package("torchvision").models
    if name not in models.list_models(module=models):
        raise SourceError(f"torchvision has no classifier {name!r}")
    if name in ("googlenet", "inception_v3"):
        # Their own way to draw weights takes half a minute.
        return models.get_model(name, weights=None, init_weights=False, **options)
    return models.get_model(name, weights=None, **options)


def _package(name: str) -> Any:
    if importlib.util.find_spec(name) is None:
        raise SourceError(f"{name} is not installed: pip install 'rootserve[import]'")
    return _import(name)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    # A torchvision that was built for CUDA has operations that a torch for CPUs cannot load. No classifier
    # has a use for them, but when it is imported it asks for two of them by name.
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    _LIBRARIES.append(library)
    for operation in ("nms", "qnms"):
        schema = f"{operation}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    for loaded in [each for each in sys.modules if each.partition(".")[0] in ("torchvision", name)]:
        del sys.modules[loaded]
    return importlib.import_module(name)


_LIBRARIES: list[torch.library.Library] = []
"""What they define is forgotten with them."""


def _list(names: set[str]) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
