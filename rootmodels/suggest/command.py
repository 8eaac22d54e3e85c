"""Filter groups that follow from responses: ``python -m rootmodels suggest FILE_OR_VARIANT --data DIR``.

From the covariance of what a trained network's convolutions take, on images of yours, it decides which
channels belong together, and writes a model file for each number of groups, called NAME-suggest-DEGREE: its
channels are in an order in which those that belong together stand together, and its convolutions are in
groups. Says what that keeps of the responses' energy, beside contiguous and random groups, as a table, JSON
and a picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rootmodels.cifar10 import read_cifar10
from rootmodels.derived import check_picture, drawing, parse_degrees, unmeasured
from rootmodels.family import FamilyError
from rootmodels.image_folder import is_image_folder, read_image_folder
from rootmodels.model import Model
from rootmodels.model_content import is_model_name
from rootmodels.model_file import read_model, write_trained
from rootmodels.roots import RootsError, indivisible
from rootmodels.signs import signs
from rootmodels.source import Source, find_source, read_source
from rootmodels.suggest.finding import Finding, content, find
from rootmodels.suggest.report import notes, report
from rootmodels.suggest.study import Study, study, why_cannot_be_grouped
from rootmodels.variants import UnknownVariantError, get_variant
from rootmodels.weights_info import PRETRAINED_DIR, WeightsError, file_sha256, publish, weights_path
from rootserve.pictures import DataError

_SUGGESTED = "suggested"
"""In the provenance: the file that a variant was made of."""


def read_some(path: Path, count: int, size: int) -> NDArray[np.uint8]:
    """``count`` images of the training set at ``path``, evenly from all of it: uint8 [count, 3, H, W].

    Args:
        path: As for training: CIFAR-10, or a folder of pictures, which are scaled to ``size``.
        count: How many.
        size: Height and width in pixels.

    Raises:
        DataError: if it cannot be read, or holds fewer.
    """
    if is_image_folder(path):
        images = read_image_folder(path, "train", size).images
    else:
        images = read_cifar10(path, "train").images
    if len(images) < count:
        raise DataError(f"{path} holds {len(images)} images, expected at least {count}")
    return images[np.linspace(0, len(images) - 1, count).round().astype(np.intp)]


def write_variants(
    looked_at: Study, findings: Sequence[Finding], folder: Path, *, fit: bool
) -> dict[str, Finding]:
    """Write a model file for each of ``findings`` into ``folder``; returns them by the files' names.

    Raises:
        WeightsError: if one cannot be written.
    """
    source = looked_at.source
    digest = file_sha256(source.path)
    written = {}
    for each in findings:
        layers, tensors = looked_at.network(each.degree, each.grouping, fit=fit)
        model = replace(
            _variant(source, each.degree),
            layers=layers,
            provenance={
                _SUGGESTED: source.path.name,
                "sha256": digest,
                "images": looked_at.images,
                "fitted": fit,
                "energy_kept": {
                    name: round((kept.fitted if fit else kept.as_they_were)["suggested"], 4)
                    for name, kept in each.kept.items()
                },
                "of": dict(source.model.provenance),
            },
        )
        path = weights_path(model.name, folder)
        write_trained(path, model, tensors)
        written[path.name] = each
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(arguments)
    try:
        _run(args)
    except (DataError, FamilyError, RootsError, UnknownVariantError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(args: argparse.Namespace) -> None:
    folder: Path = args.out
    path = find_source(args.source, args.weights)
    if path.stem == args.source and not path.exists():
        get_variant(args.source)
        raise WeightsError(
            f"{args.weights} holds no weights of {args.source}; expected trained ones"
        )
    source = read_source(path)
    picture: Path = args.picture or folder / f"{source.model.name}-suggest.png"
    _check(source, args, picture)
    with signs(f"reading images of {args.data}") as tell:
        images = read_some(args.data, args.images, source.model.image_size)
        tell(f"taking the responses of {source.model.name} to {len(images):,} images")
        looked_at = study(source, images, args.layers)
        findings = [find(looked_at, degree, tell) for degree in args.degrees]
        tell("fitting weights and writing files")
        written = write_variants(looked_at, findings, folder, fit=not args.no_fit)
    text = json.dumps(content(looked_at, written), indent=1)
    told = folder / f"{source.model.name}-suggest.json"
    publish(told, lambda partial: partial.write_text(text))
    print(report(looked_at, findings), end="\n\n")
    for note in notes(looked_at):
        print(f"note: {note}")
    for file in [*(folder / name for name in written), told]:
        print(file)
    if not args.no_picture:
        _draw(looked_at, findings, picture)
        print(picture)


def _check(source: Source, args: argparse.Namespace, picture: Path) -> None:
    """Refuse what would fail later, before any image is looked at.

    Raises:
        RootsError, WeightsError: saying what came and what was expected.
    """
    model = source.model
    if model.topology != "orig":
        raise WeightsError(
            f"{source.path} is a variant, {model.topology}-{model.degree}; expected its original"
        )
    reasons = why_cannot_be_grouped(model.layers, args.layers)
    free = [layer for layer in model.layers if reasons.get(layer.name) == ""]
    for degree in args.degrees:
        told = {layer.name: indivisible(layer, degree) for layer in free}
        if all(told.values()):
            reason = "; ".join(f"{name}: {why}" for name, why in (reasons | told).items() if why)
            raise RootsError(f"nothing can be in {degree} groups: {reason}")
    for degree in args.degrees:
        variant = _variant(source, degree)
        _check_free(weights_path(variant.name, args.out), source)
    if not args.no_picture:
        check_picture(picture, drawn=True)


def _variant(source: Source, degree: int) -> Model:
    """The variant's model, but for its layers and where it comes from.

    Raises:
        WeightsError: if its name would be too long.
    """
    model = source.model
    name = f"{model.name}-suggest-{degree}"
    if not is_model_name(name):
        raise WeightsError(f"{source.path}: {name!r} is no name of a model; expected a shorter one")
    return unmeasured(model, name, "own", degree)


def _check_free(path: Path, source: Source) -> None:
    """Refuse to take the place of anything but what this command made of the same file.

    Raises:
        WeightsError: saying what is there.
    """
    if not path.exists():
        return
    there = read_model(path)
    if there.provenance.get(_SUGGESTED) != source.path.name:
        raise WeightsError(f"{path} is there already, of another network; expected another --out")
    if there.accuracy is not None:
        raise WeightsError(
            f"{path} is there already, and was measured since; expected another --out"
        )


def _draw(looked_at: Study, findings: Sequence[Finding], picture: Path) -> None:
    # Imported where it is drawn: no other command needs matplotlib.
    from rootmodels.suggest.figure import draw  # noqa: PLC0415

    with drawing(picture):
        draw(looked_at, findings, picture)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} came, expected a whole number of 1 or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rootmodels suggest", description=__doc__)
    add = parser.add_argument
    add("source", metavar="FILE_OR_VARIANT", help="a trained original: its model file, or its name")
    add("--data", type=Path, required=True, metavar="DIR", help="what it was trained on")
    add("--images", type=_count, default=1000, metavar="N", help="of them; default: 1000")
    add(
        "--degrees",
        type=partial(parse_degrees, example="4,8,16"),
        required=True,
        metavar="G,...",
        help="one file for each",
    )
    add(
        "--layers",
        default="*",
        metavar="GLOB",
        help="convolutions to group; default: all that can be",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    add(
        "--weights",
        type=Path,
        default=PRETRAINED_DIR,
        metavar="DIR",
        help="where a variant's weights are; default: the shipped",
    )
    add("--no-fit", action="store_true", help="leave the weights within the groups as they are")
    add("--picture", type=Path, metavar="FILE", help="default: DIR/NAME-suggest.png")
    add("--no-picture", action="store_true", help="draw none")
    return parser
