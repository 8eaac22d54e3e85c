"""Variants of a network in filter groups: ``python -m rootmodels root F.safetensors --topology root``.

Writes a model file for each degree, called NAME-TOPOLOGY-DEGREE, whose weights are those connections of
F.safetensors that stay within the new groups: a beginning for training, not yet a good network. Prints
which convolutions are grouped and why others are not, with parameters and multiply-accumulates, and draws
what each layer costs. rootmodels/roots.py has the rules.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from safetensors.numpy import load_file

from rootmodels.layer import Layer
from rootmodels.model import Model
from rootmodels.model_content import is_model_name
from rootmodels.model_file import read_model, write_trained
from rootmodels.roots import LARGEST_DEGREE, Rooted, RootsError, RootTopology, rooted
from rootmodels.roots_report import report
from rootmodels.tensors import Tensors
from rootmodels.train_init import narrowed
from rootmodels.weights_info import WeightsError, weights_path

_FORMATS = (".png", ".svg", ".pdf")

_ROOTED = "rooted"
"""In the provenance: the file that a variant was made of."""


def derive(source: Path, model: Model, variants: Sequence[Rooted], folder: Path) -> list[Path]:
    """Write each of ``variants`` of ``model``, whose file is ``source``, into ``folder``.

    Raises:
        WeightsError: before any is written, if a file of such a name is there that this command has not made
            of this network; or if one cannot be written.
    """
    files = [(each, _variant(source, model, each)) for each in variants]
    for _, variant in files:
        _check_free(weights_path(variant.name, folder), variant)
    tensors = load_file(source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for each, variant in files:
        path = weights_path(variant.name, folder)
        named = replace(variant, provenance={**variant.provenance, "sha256": digest})
        write_trained(path, named, _narrowed(tensors, each))
        paths.append(path)
    return paths


def _variant(source: Path, model: Model, each: Rooted) -> Model:
    name = f"{model.name}-{each.topology}-{each.degree}"
    if not is_model_name(name):
        raise WeightsError(f"{source}: {name!r} is no name of a model; expected a shorter one")
    return replace(
        model,
        name=name,
        layers=each.layers,
        family=model.family or model.name,
        topology=each.topology,
        degree=each.degree,
        # Nobody has measured it.
        accuracy=None,
        test_images=0,
        tested_on="",
        provenance={_ROOTED: source.name, "of": dict(model.provenance)},
    )


def _check_free(path: Path, variant: Model) -> None:
    """Refuse to take the place of anything but what this command made of the same network.

    Raises:
        WeightsError: saying what is there.
    """
    if not path.exists():
        return
    there = read_model(path)
    if _but_groups(there.layers) != _but_groups(variant.layers):
        raise WeightsError(f"{path} is there already, of another network; expected another --out")
    if _ROOTED not in there.provenance or there.accuracy is not None:
        raise WeightsError(
            f"{path} is there already, and was trained or measured since; expected another --out"
        )


def _but_groups(layers: Sequence[Layer]) -> list[Layer]:
    return [replace(layer, groups=1) if layer.kind == "conv" else layer for layer in layers]


def _narrowed(tensors: Tensors, variant: Rooted) -> Tensors:
    """``tensors`` of the original, of which grouped convolutions keep what connects their groups."""
    kept = dict(tensors)
    for each in variant.groupings:
        key = f"{each.layer.path}.weight"
        weight = torch.from_numpy(np.asarray(kept[key]))
        kept[key] = narrowed(weight, each.layer.groups, each.groups).numpy()
    return kept


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(arguments)
    try:
        _run(args)
    except (RootsError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(args: argparse.Namespace) -> None:
    source: Path = args.file
    folder: Path = args.out
    model = read_model(source)
    if model.topology != "orig":
        raise WeightsError(
            f"{source} is a variant, {model.topology}-{model.degree}; expected the file of its original"
        )
    topology: RootTopology = args.topology
    variants = [rooted(model.layers, topology, degree, args.layers) for degree in args.degree]
    picture: Path = args.picture or folder / f"{model.name}-{topology}.png"
    if picture.suffix not in _FORMATS:
        raise WeightsError(f"--picture {picture}: expected one of {', '.join(_FORMATS)}")
    if not args.no_picture and importlib.util.find_spec("matplotlib") is None:
        raise WeightsError(
            "pictures need matplotlib, which the extra 'client' brings: pip install 'rootserve[client]'; "
            "or give --no-picture"
        )
    paths = derive(source, model, variants, folder)
    print(report(model, variants), end="\n\n")
    for path in paths:
        print(path)
    if not args.no_picture:
        # Imported where it is drawn: no other command needs matplotlib.
        from rootmodels.roots_figure import draw_costs  # noqa: PLC0415

        try:
            picture.parent.mkdir(parents=True, exist_ok=True)
            draw_costs(model, variants, picture)
        except OSError as error:
            raise WeightsError(f"--picture {picture}: {error}") from error
        print(picture)


def _degrees(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdecimal() and 2 <= int(part) <= LARGEST_DEGREE for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} came, expected whole numbers of 2 to {LARGEST_DEGREE}, as 2,4,8"
        )
    return sorted({int(part) for part in parts})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rootmodels root", description=__doc__)
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="model file of the original")
    add("--topology", required=True, choices=get_args(RootTopology), help="the degree by depth")
    add("--degree", required=True, type=_degrees, metavar="G,...", help="one file for each")
    add(
        "--layers",
        default="*",
        metavar="GLOB",
        help="convolutions to group; default: all that can be",
    )
    add("--out", required=True, type=Path, metavar="DIR", help="where the files go")
    add("--picture", type=Path, metavar="FILE", help="default: DIR/NAME-TOPOLOGY.png")
    add("--no-picture", action="store_true", help="draw none")
    return parser
