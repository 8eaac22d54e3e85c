"""Make a model file of any torch module: ``python -m rootmodels import SOURCE --name N --image-size S``.

SOURCE is MODULE:FACTORY, a module of one's own; torchvision:NAME or timm:NAME. The module is traced into
layers (rootmodels/trace), these are held to its logits, and the file says all there is to serve them. What
cannot be traced is refused, with the line of the module's code. For the weights of a variant that is known
here, --variant NAME takes the place of all that; --variant NAME --help tells its options.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor, nn

from rootmodels import import_weights
from rootmodels.cost import layer_cost
from rootmodels.family import Channels, FamilyError, unnamed
from rootmodels.import_weights import read_classes
from rootmodels.model import Model
from rootmodels.model_content import is_model_name
from rootmodels.model_file import write_trained
from rootmodels.network import Network
from rootmodels.signs import signs
from rootmodels.trace.errors import TraceError
from rootmodels.trace.module import Traced, trace_module
from rootmodels.trace.sources import FORMS, SourceError, load_weights, make_module
from rootmodels.weights_info import WeightsError

TOLERANCE = 1e-4
"""Between the logits of the module and of its layers, as a share of the largest logit."""

_CHECKED_IMAGES = 4
_OWN_WEIGHTS = (
    "no --weights came: its weights are those that the module began with, random as a rule\n"
)
_FULL = 255.0
"""What a module's images of 0..1 are to those that are served."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A model file that was written."""

    path: Path
    model: Model
    error: float
    """Largest difference between the logits of the module and of its layers, on random images."""


def import_network(module: nn.Module, path: Path, model: Model) -> Imported:
    """Trace ``module`` and write it to ``path``, ``NAME.safetensors``.

    Args:
        module: What takes images [N, 3, S, S] and gives logits [N, classes].
        path: Where the file will be.
        model: What to say of it. Its layers are those of ``module``, whatever it has; without classes, the
            logits get numbers. Its mean and std are those of images in 0..255.

    Raises:
        TraceError: if it cannot be traced, or its layers do not give its logits.
        WeightsError: if the file cannot be written, or there are not as many classes as logits.
    """
    traced = trace_module(module, model.image_size)
    classes = model.classes or unnamed(traced.classes)
    if len(classes) != traced.classes:
        raise WeightsError(f"{len(classes)} classes came, the module gives {traced.classes} logits")
    model = replace(model, layers=traced.layers, classes=classes)
    error = _check(module, traced, model)
    write_trained(path, model, traced.tensors)
    return Imported(path, model, error)


def _check(module: nn.Module, traced: Traced, model: Model) -> float:
    """The largest difference between the logits of ``module`` and of what was traced of it.

    Raises:
        TraceError: if it is larger than rounding explains.
    """
    network = Network(model.variant)
    network.load_state_dict({key: torch.tensor(each) for key, each in traced.tensors.items()})
    generator = torch.Generator().manual_seed(0)
    shape = (_CHECKED_IMAGES, 3, model.image_size, model.image_size)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (model.mean, model.std))
    device = next((part.device for part in module.parameters()), torch.device("cpu"))
    was_training = module.training
    with torch.inference_mode():
        expected: Tensor = module.eval()(((images - mean) / std).to(device)).cpu()
        found = network.fold()(images)
    module.train(was_training)
    error = float((found - expected).abs().max())
    if not error <= TOLERANCE * float(expected.abs().max()):
        raise TraceError(
            f"the layers found give logits that are off by {error:.2g}; something in the module is not what "
            "it seems, such as what it does outside of torch"
        )
    return error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if any(each.split("=")[0] == "--variant" for each in given):
        return import_weights.main(given)
    args = _parser().parse_args(given)
    try:
        with signs(f"tracing {args.source}"):
            imported = _run(args)
    except (FamilyError, SourceError, TraceError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    costs = [layer_cost(layer) for layer in imported.model.layers]
    print(
        f"{imported.path}: {len(costs)} layers, {len(imported.model.classes)} classes, "
        f"{sum(cost.params for cost in costs):,} parameters, {sum(cost.macs for cost in costs):,} "
        f"multiply-accumulates; logits differ from the module's by {imported.error:.1g} at most\n"
        f"{'' if args.weights else _OWN_WEIGHTS}"
        f"serve it with rootserve-server --weights {imported.path.parent} --models {imported.model.name}"
    )
    return 0


def _run(args: argparse.Namespace) -> Imported:
    if Path(args.source).is_file() or args.source.endswith(".safetensors"):
        raise SourceError(
            f"{args.source!r} is a file; expected {FORMS}, with --weights for the file, or --variant for "
            "weights of a known variant"
        )
    if not is_model_name(args.name):
        raise SourceError(
            f"--name {args.name!r}: expected small letters, digits, '-', '.' and '_', with a letter or "
            "digit first"
        )
    path: Path = args.out
    if path.suffix != ".safetensors":
        path /= f"{args.name}.safetensors"
    if path.stem != args.name:
        raise SourceError(f"--out {path}: a file of {args.name} is called {args.name}.safetensors")
    classes = read_classes(args.classes) if args.classes else []
    module = make_module(args.source, len(classes) or None)
    provenance = {"imported": args.source, "torch": torch.__version__}
    if args.weights:
        load_weights(module, args.weights)
        provenance["weights"] = args.weights.name
        provenance["sha256"] = hashlib.sha256(args.weights.read_bytes()).hexdigest()
    model = Model(
        name=args.name,
        layers=(),
        mean=_of_bytes(args.mean),
        std=_of_bytes(args.std),
        image_size=args.image_size,
        classes=tuple(classes),
        crop=args.crop,
        accuracy=args.accuracy,
        provenance=provenance,
    )
    return import_network(module, path, model)


def _of_bytes(channels: Channels) -> Channels:
    """What ``channels`` of images in 0..1 are in 0..255."""
    red, green, blue = channels
    return _FULL * red, _FULL * green, _FULL * blue


def _channels(text: str) -> Channels:
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} came, expected three numbers for red, green and blue, as 0.485,0.456,0.406"
        ) from None
    return red, green, blue


def _mean(text: str) -> Channels:
    mean = _channels(text)
    if not all(-2 <= each <= 2 for each in mean):
        raise argparse.ArgumentTypeError(f"{text!r} came, expected those of images in 0..1")
    return mean


def _std(text: str) -> Channels:
    std = _channels(text)
    if not all(1e-3 <= each <= 2 for each in std):
        raise argparse.ArgumentTypeError(
            f"{text!r} came, expected those of images in 0..1, above 0"
        )
    return std


def _size(text: str) -> int:
    if not text.isdecimal() or not 16 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} came, expected 16 to 1024 pixels")
    return int(text)


def _crop(text: str) -> Fraction:
    try:
        crop = Fraction(text)
    except (ValueError, ZeroDivisionError):
        crop = Fraction(0)
    if not Fraction(1, 4) <= crop <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} came, expected 0.25 to 1, such as 0.875")
    return crop


def _accuracy(text: str) -> float:
    try:
        accuracy = float(text)
    except ValueError:
        accuracy = -1.0
    if not 0 <= accuracy <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} came, expected 0 to 1")
    return accuracy


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rootmodels import", description=__doc__)
    add = parser.add_argument
    add("source", metavar="SOURCE", help=FORMS)
    add(
        "--weights",
        type=Path,
        metavar="FILE",
        help="safetensors file with its state dict; default: its own",
    )
    add("--name", required=True, help="what it is served under")
    add("--image-size", required=True, type=_size, metavar="PIXELS", help="its square images")
    add(
        "--mean",
        type=_mean,
        default=(0.0, 0.0, 0.0),
        metavar="R,G,B",
        help="of images in 0..1, as 0.485,0.456,0.406; default: nothing is subtracted",
    )
    add("--std", type=_std, default=(1.0, 1.0, 1.0), metavar="R,G,B", help="as --mean; default: 1")
    add("--crop", type=_crop, default=Fraction(1), help="middle part of pictures; default: 1")
    add("--classes", type=Path, metavar="FILE", help="names of the logits, one in a line")
    add("--accuracy", type=_accuracy, help="top-1 accuracy, 0..1, as measured elsewhere")
    add(
        "--out",
        type=Path,
        default=Path("weights"),
        metavar="PATH",
        help="folder, or NAME.safetensors in one; default: weights",
    )
    return parser
