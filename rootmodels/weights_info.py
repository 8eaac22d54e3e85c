"""What a weights file says of itself: read without torch and without reading the tensors."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from rootmodels.family import FamilyError, Variant
from rootmodels.layers import network_layers
from rootmodels.variants import VARIANTS, family_of, get_variant

PRETRAINED_DIR = Path(__file__).parent / "pretrained"
"""The weights shipped with the package, one ``<variant>.safetensors`` each."""

METADATA_KEY = "rootserve"

_IMAGE_SIZES = (16, 1024)


class WeightsError(ValueError):
    """A weights file cannot be used; says which, what was wrong and what was expected."""


@dataclass(frozen=True, slots=True)
class WeightsInfo:
    """How a file's weights came to be.

    ``accuracy`` is top-1 over all ``test_images``, of the folded network in fp32; None if nobody measured it.
    ``seconds`` is wall time spent training. ``seed_accuracies`` has the accuracy for each seed that was tried
    with this recipe. ``precision`` is what the convolutions computed in while training, "" where that is not
    known.
    ``continued_from`` says what the training began with, if not with random weights; ``epochs`` counts
    those epochs too. ``classes`` are the names of the logits and ``image_size`` the height and width of the
    images, where they are not the family's. ``tested_on`` says which images ``test_images`` counts.
    """

    variant: str
    accuracy: float | None
    test_images: int
    epochs: int
    seed: int
    data_sha256: str
    recipe: dict[str, str | int | float | bool]
    hardware: str = ""
    precision: str = ""
    seconds: float = 0.0
    seed_accuracies: dict[str, float] = field(default_factory=dict)
    continued_from: dict[str, Any] | None = None
    classes: tuple[str, ...] = ()
    image_size: int | None = None
    tested_on: str = ""

    def content(self) -> dict[str, Any]:
        """The fields as JSON has them; without those that say nothing beyond the family."""
        content = asdict(self)
        return {
            key: value
            for key, value in content.items()
            if value or key not in ("classes", "image_size", "tested_on")
        }


def weights_path(name: str, folder: Path = PRETRAINED_DIR) -> Path:
    """Where the weights of the variant called ``name`` are in ``folder``, if they are there."""
    return folder / f"{name}.safetensors"


def with_weights(folder: Path = PRETRAINED_DIR) -> list[str]:
    """The variants that have weights in ``folder``."""
    return [name for name in VARIANTS if weights_path(name, folder).exists()]


def class_names(variant: Variant, info: WeightsInfo | None) -> tuple[str, ...]:
    """What the logits of ``variant`` stand for, with the weights that ``info`` describes or without any."""
    return (info.classes if info else ()) or family_of(variant).classes


def image_size(variant: Variant, info: WeightsInfo | None) -> int:
    """Height and width of the images it takes, in pixels; as :func:`class_names`."""
    return (info.image_size if info else None) or family_of(variant).image_size


def read_info(path: Path) -> WeightsInfo:
    """The metadata of the file at ``path``.

    Raises:
        WeightsError: if the file is no safetensors file or was not written by this project.
        FamilyError: if an installed family cannot be used.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        raise WeightsError(f"{path} does not exist") from error
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error
    try:
        content = json.loads(metadata[METADATA_KEY])
        known = {field.name for field in fields(WeightsInfo)}
        info = WeightsInfo(**{key: value for key, value in content.items() if key in known})
        info = replace(info, classes=tuple(info.classes))
        check_info(info)
        return info
    except FamilyError:
        raise  # an installed family cannot be used: no fault of the file
    except (LookupError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} has no usable {METADATA_KEY!r} metadata ({error}); expected weights written "
            "by rootmodels.train, or by python -m rootmodels import"
        ) from error


def check_info(info: WeightsInfo) -> None:
    """Refuse what cannot be.

    Raises:
        UnknownVariantError: if there is no such variant.
        WeightsError: if a figure is out of its range, the variant takes no images of that size, or a class
            has no name.
    """
    variant = get_variant(info.variant)
    if info.accuracy is not None and not 0.0 <= info.accuracy <= 1.0:
        raise WeightsError(f"accuracy is {info.accuracy}, expected 0 to 1")
    low, high = _IMAGE_SIZES
    if info.image_size is not None and not low <= info.image_size <= high:
        raise WeightsError(f"image size is {info.image_size}, expected {low} to {high} pixels")
    if not all(isinstance(name, str) and name for name in info.classes):
        raise WeightsError("a class has no name")
    if info.image_size is not None:
        try:
            network_layers(variant, info.image_size)
        except FamilyError as error:
            raise WeightsError(str(error)) from error


def file_sha256(path: Path) -> str:
    """The SHA-256 of a weights file, in hex.

    Raises:
        WeightsError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error


def being_written(path: Path) -> Path:
    """A name beside ``path`` for what will be there: another for each process, on whichever machine it is."""
    return path.with_suffix(f".{secrets.token_hex(4)}.partial")


def publish(path: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` make the file at ``path``, all or nothing, for everybody to read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = being_written(path)
    write(partial)
    # safetensors lets the owner alone read it; a service often runs as somebody else.
    partial.chmod(0o644)
    partial.replace(path)
