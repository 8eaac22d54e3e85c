"""Make a weights file of a state dict: ``python -m rootmodels import FILE --variant NAME``.

For weights that were trained elsewhere. FILE is a safetensors file with the names and shapes of the variant's
state dict, which for ResNet-50 are those of torchvision. Its tensors are kept as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from rootmodels.family import FamilyError, Variant
from rootmodels.layers import network_layers
from rootmodels.tensors import check_tensors
from rootmodels.variants import VARIANTS, UnknownVariantError, get_variant
from rootmodels.weights_info import (
    METADATA_KEY,
    WeightsError,
    WeightsInfo,
    check_info,
    image_size,
    publish,
    weights_path,
)


def import_weights(
    source: Path,
    variant: Variant,
    out: Path,
    *,
    classes: Sequence[str] = (),
    accuracy: float | None = None,
    size: int | None = None,
) -> Path:
    """Write the state dict at ``source`` as weights of ``variant`` into the folder ``out``.

    Args:
        source: A safetensors file.
        variant: Whose state dict it is.
        out: Gets ``VARIANT.safetensors``.
        classes: What the logits stand for; without, they get numbers.
        accuracy: Top-1 accuracy as measured elsewhere, 0..1.
        size: Height and width of the images it is for, in pixels; without, the family's.

    Raises:
        WeightsError: if ``source`` cannot be read, its tensors are not those of ``variant``, or there are
            not as many ``classes`` as logits.
    """
    tensors = _read(source)
    last = [layer for layer in network_layers(variant) if layer.has_weights][-1]
    found = tensors.get(f"{last.path}.bias", np.zeros(last.out_channels))
    logits = len(found) if found.ndim else 0
    if classes and len(classes) != logits:
        raise WeightsError(f"{len(classes)} classes came, {source} has {logits} logits")
    info = WeightsInfo(
        variant=variant.name,
        accuracy=accuracy,
        test_images=0,
        epochs=0,
        seed=0,
        data_sha256="",
        recipe={
            "imported": source.name,
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        },
        classes=tuple(classes or (f"class {index}" for index in range(logits))),
        image_size=size,
    )
    check_info(info)
    layers = network_layers(variant, image_size(variant, info), logits)
    for layer in layers:
        # How many batches a normalisation saw matters to nobody, and some files leave it out.
        if layer.norm:
            tensors.setdefault(f"{layer.norm}.num_batches_tracked", np.zeros((), np.int64))
    check_tensors(str(source), tensors, variant.name, layers)
    path = weights_path(variant.name, out)
    metadata = {METADATA_KEY: json.dumps(info.content())}
    publish(path, lambda partial: save_file(tensors, partial, metadata))
    return path


def _read(source: Path) -> dict[str, NDArray[np.generic]]:
    try:
        tensors: dict[str, NDArray[np.generic]] = load_file(source)
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        # The last two are what numpy's reader says of a number format that numpy has not.
        raise WeightsError(
            f"{source} cannot be read ({error}); expected a safetensors file with tensors in fp16 or fp32"
        ) from error
    return tensors


def read_classes(path: Path) -> list[str]:
    """Names of classes, one in a line, in the order of the logits.

    Raises:
        WeightsError: if the file cannot be read, or a line is empty.
    """
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}; expected a class per line") from error
    if not lines or "" in lines:
        where = f"line {lines.index('') + 1} is empty" if lines else "it is empty"
        raise WeightsError(f"{path}: {where}; expected a class per line")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    try:
        args = _parser().parse_args(arguments)
        path = import_weights(
            args.file,
            get_variant(args.variant),
            args.out,
            classes=read_classes(args.classes) if args.classes else (),
            accuracy=args.accuracy,
            size=args.image_size,
        )
    except (FamilyError, UnknownVariantError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{path}: serve it with rootserve-server --weights {args.out} --models {args.variant}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rootmodels import", description=__doc__)
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="safetensors file with a state dict")
    add("--variant", required=True, metavar="NAME", help=", ".join(VARIANTS))
    add("--classes", type=Path, metavar="FILE", help="names of the logits, one in a line")
    add("--accuracy", type=float, help="top-1 accuracy, 0..1, as measured elsewhere")
    add("--image-size", type=int, metavar="PIXELS", help="default: what the family takes")
    add("--out", type=Path, default=Path("weights"), metavar="DIR", help="default: weights")
    return parser
