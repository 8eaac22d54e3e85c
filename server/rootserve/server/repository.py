"""The folders of weights: files, folders of versions beside them, and which version of a model is served.

``NAME.safetensors`` is version 1 of the model called NAME. Later ones are in folders,
``NAME/2/NAME.safetensors`` and so on, in which a first one may be as well. One version of a model is served
at a time: the latest, or one that was asked for. Of several folders, one has all versions of a model.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from rootmodels.cost import network_cost
from rootmodels.family import Topology, Variant
from rootmodels.model_content import is_model_name
from rootmodels.model_file import model_names, open_weights
from rootmodels.variants import VARIANTS
from rootmodels.weights_info import (
    WeightsError,
    WeightsInfo,
    class_names,
    file_sha256,
    image_size,
    weights_path,
)
from rootserve.server.models import VERSION, ModelCard, Models

LATEST = 0
"""Asks for the highest version that there is, whatever is pinned."""

_VERSION = re.compile(r"[1-9]\d{0,8}")


class Repository:
    """What ``folders`` have of each model. They are read anew whenever they are asked.

    ``pinned`` are versions by the name of their model, for those of which not the latest is to be served.
    """

    def __init__(self, folders: Sequence[Path], pinned: Mapping[str, int] | None = None) -> None:
        self.folders = tuple(folders)
        self.pinned = dict(pinned or {})

    def versions(self, name: str) -> dict[int, Path]:
        """The weights files of the model called ``name`` by their version, the lowest first.

        Raises:
            WeightsError: if there are two of version 1, or several folders have files of it: which is meant,
                nobody said.
        """
        everywhere = [versions for folder in self.folders if (versions := _versions(name, folder))]
        if len(everywhere) > 1:
            places = " and in ".join(str(next(iter(one.values()))) for one in everywhere)
            raise WeightsError(f"{name} is in {places}; expected it in one folder")
        return everywhere[0] if everywhere else {}

    @property
    def places(self) -> str:
        """The folders, in words."""
        return " or ".join(map(str, self.folders))

    def paths(self, name: str) -> str:
        """Where a file of the model called ``name`` might be, in words."""
        return " or ".join(str(weights_path(name, folder)) for folder in self.folders)

    def has(self, name: str) -> bool:
        """Whether there is a file of a model that may be called ``name``."""
        return is_model_name(name) and bool(self.versions(name))

    def read(self, name: str, version: int | None = None) -> ModelCard:
        """The card of the model called ``name``: of ``version``, of the one that is pinned, or of the latest.

        Raises:
            WeightsError: if there is no such version, the file is no weights file or one of another variant,
                or ``name`` is no variant's and there is no file.
        """
        wanted = self.pinned.get(name) if version is None else version
        there = self.versions(name)
        if wanted and wanted not in there:
            raise WeightsError(
                f"{self.places} has no version {wanted} of {name}; "
                f"{'there is none' if not there else f'there are {_listed(there)}'}"
            )
        if not there:
            if name in VARIANTS:
                return _card(VARIANTS[name])
            raise WeightsError(f"{self.paths(name)} cannot be read: {os.strerror(errno.ENOENT)}")
        chosen = wanted or max(there)
        path = there[chosen]
        # The hash first: a file that is replaced in between is not the one that workers are told to load.
        sha256 = file_sha256(path)
        variant, info = open_weights(path)
        if variant.name != name:
            raise WeightsError(f"{path} holds weights of {variant.name}, not of {name}")
        card = _card(variant, path, info, sha256)
        return replace(card, version=str(chosen), is_pinned=bool(wanted))

    def find_models(self) -> Models:
        """Every variant of the table with the weights that there are for it, and every model file.

        Raises:
            WeightsError: as :meth:`read`, or if a version is pinned of what is no model.
            FamilyError: if an installed family cannot be used.
        """
        for folder in self.folders:
            if len(self.folders) > 1 and not folder.is_dir():
                raise WeightsError(
                    f"{folder} is no folder; expected one with weights or model files"
                )
        names = sorted({name for folder in self.folders for name in _model_files(folder)})
        if unknown := self.pinned.keys() - {*VARIANTS, *names}:
            raise WeightsError(f"versions: there is no model {min(unknown)!r} in {self.places}")
        cards = [self.read(name) for name in VARIANTS]
        return Models([*cards, *sorted(map(self.read, names), key=_order)])


def _model_files(folder: Path) -> list[str]:
    """The models that are no variants of a family, sorted."""
    folders = {
        path.parent.parent.name: path.parent
        for path in folder.glob("*/*/*.safetensors")
        if path.stem == path.parent.parent.name and _VERSION.fullmatch(path.parent.name)
    }
    versioned = [name for name, own in folders.items() if name in model_names(own)]
    return sorted({*model_names(folder), *versioned})


def _versions(name: str, folder: Path) -> dict[int, Path]:
    flat = weights_path(name, folder)
    found = {int(VERSION): flat} if flat.is_file() else {}
    for path in (folder / name).glob(f"*/{flat.name}"):
        if not (_VERSION.fullmatch(path.parent.name) and path.is_file()):
            continue
        version = int(path.parent.name)
        if version in found:
            raise WeightsError(
                f"{found[version]} and {path} are both version {version} of {name}; expected one"
            )
        found[version] = path
    return dict(sorted(found.items()))


def _order(card: ModelCard) -> tuple[object, ...]:
    """Variants of one network side by side, the original first, as a family lists them."""
    variant = card.variant
    return variant.family, get_args(Topology).index(variant.topology), variant.degree, card.name


def _card(
    variant: Variant, path: Path | None = None, info: WeightsInfo | None = None, sha256: str = ""
) -> ModelCard:
    cost = network_cost(variant, image_size(variant, info), len(class_names(variant, info)))
    return ModelCard(variant, cost, path, info, sha256)


def _listed(versions: Mapping[int, Path]) -> str:
    return ", ".join(map(str, versions))
