"""Variants of a network in filter groups: ``python -m rootmodels root FILE --topology root --degree 8``.

Writes a model file for each degree, called NAME-TOPOLOGY-DEGREE, whose weights are those connections of
FILE that stay within the new groups: a beginning for training, not yet a good network. With ``--groups``
instead, one file of groups of one's own choice: ``conv2a=4,conv3a=8`` by the names of convolutions, or
``1,8`` for one stage after the other. Prints which convolutions are grouped and why others are not, with
parameters and multiply-accumulates, and draws what each layer costs. rootmodels/roots.py has the rules.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from rootmodels.derived import check_picture, drawing, parse_degrees, unmeasured
from rootmodels.layer import Layer
from rootmodels.model import Model
from rootmodels.model_content import is_model_name
from rootmodels.model_file import read_model, write_trained
from rootmodels.roots import (
    LARGEST_DEGREE,
    Rooted,
    RootsError,
    RootTopology,
    by_stage,
    grouped,
    rooted,
    unmixed,
)
from rootmodels.roots_report import report
from rootmodels.signs import signs
from rootmodels.source import Source, read_source
from rootmodels.tensors import Tensors
from rootmodels.train_init import narrowed
from rootmodels.variants import VARIANTS
from rootmodels.weights_info import WeightsError, file_sha256, weights_path

_ROOTED = "rooted"
"""In the provenance: the file that a variant was made of."""


def derive(source: Source, variants: Sequence[Rooted], folder: Path, name: str = "") -> list[Path]:
    """Write each of ``variants`` of ``source`` into ``folder``.

    ``name`` is that of the only one; without, each is called after its original.

    Raises:
        WeightsError: before any is written, if a file of such a name is there that this command has not made
            of this network; or if one cannot be written.
    """
    path, model = source.path, source.model
    files = [(each, _variant(path, model, each, name)) for each in variants]
    for _, variant in files:
        _check_free(weights_path(variant.name, folder), variant)
    digest = file_sha256(path)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for each, variant in files:
        made = weights_path(variant.name, folder)
        named = replace(variant, provenance={**variant.provenance, "sha256": digest})
        write_trained(made, named, _narrowed(source.tensors, each))
        paths.append(made)
    return paths


def _variant(source: Path, model: Model, each: Rooted, name: str) -> Model:
    name = name or f"{model.name}-{each.title}"
    if not is_model_name(name):
        raise WeightsError(
            f"{source}: {name!r} is no name of a model; expected up to 100 small letters, digits, "
            '"-", "." and "_"'
        )
    if name in VARIANTS:
        raise WeightsError(f"{name} is the name of a variant that comes along; expected another")
    return replace(
        unmeasured(model, name, each.topology, each.degree),
        layers=each.layers,
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
    parser = _parser()
    args = parser.parse_args(arguments)
    if (args.groups is None) == (args.topology is None) or (args.topology is None) != (
        args.degree is None
    ):
        parser.error("expected --topology with --degree, or --groups")
    if args.groups is None and args.name:
        parser.error("--name is for the one network of --groups")
    if args.groups is not None and args.layers != "*":
        parser.error("--layers is for --topology; --groups says which layers")
    try:
        _run(args)
    except (RootsError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(args: argparse.Namespace) -> None:
    folder: Path = args.out
    source = read_source(args.file)
    model = source.model
    if model.topology != "orig":
        raise WeightsError(
            f"{source.path} is a variant, {model.topology}-{model.degree}; expected the file of its original"
        )
    topology: RootTopology | None = args.topology
    if topology is not None:
        variants = [rooted(model.layers, topology, degree, args.layers) for degree in args.degree]
    else:
        wanted = args.groups
        if isinstance(wanted, list):
            wanted = by_stage(model.layers, wanted)
        variants = [replace(grouped(model.layers, wanted), name=args.name or "")]
        for note in unmixed(variants[0]):
            print(f"note: {note}", file=sys.stderr)
    stem = f"{model.name}-{topology}" if topology else args.name or f"{model.name}-own"
    picture: Path = args.picture or folder / f"{stem}.png"
    check_picture(picture, drawn=not args.no_picture)
    with signs(f"writing variants of {model.name}"):
        paths = derive(source, variants, folder, args.name)
    print(report(model, variants), end="\n\n")
    for path in paths:
        print(path)
    if not args.no_picture:
        # Imported where it is drawn: no other command needs matplotlib.
        from rootmodels.roots_figure import draw_costs  # noqa: PLC0415

        with drawing(picture):
            draw_costs(model, variants, picture)
        print(picture)


def _groups(text: str) -> list[int] | dict[str, int]:
    """Groups stage by stage, or by patterns of names."""
    wrong = argparse.ArgumentTypeError(
        f"{text!r} came, expected NAME=GROUPS,... as conv2a=4,conv3a=8, or the groups of each stage, as 1,8"
    )
    found: dict[str, int] = {}
    stages: list[int] = []
    for part in text.split(","):
        name, equals, number = part.rpartition("=")
        if (
            not number.isdecimal()
            or not 1 <= int(number) <= LARGEST_DEGREE
            or bool(name) != bool(equals)
        ):
            raise wrong
        if name in found:
            raise argparse.ArgumentTypeError(f"{name} comes twice in {text!r}")
        if name:
            found[name] = int(number)
        else:
            stages.append(int(number))
    if bool(found) == bool(stages):
        raise wrong
    return found or stages


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rootmodels root", description=__doc__)
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="model file of the original, or weights of one")
    add("--topology", choices=get_args(RootTopology), help="the degree by depth")
    add(
        "--degree",
        type=partial(parse_degrees, example="2,4,8"),
        metavar="G,...",
        help="one file for each",
    )
    add(
        "--groups",
        type=_groups,
        metavar="NAME=G,...",
        help="groups of one's own choice instead: by names or patterns, or G,... stage by stage",
    )
    add("--name", default="", help="what the network of --groups is called (default: FILE's-own-G)")
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
