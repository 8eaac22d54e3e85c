"""What is known of a network's numbers: the ranges of its responses, and how accurate each precision is.

Kept beside the weights, as ``<variant>.calibration.json``, and bound to them by their hash: ranges of other
weights would quantise silently wrong. Importable without torch; :mod:`rootmodels.ranges` measures.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

Range = tuple[float, float]


class CalibrationError(ValueError):
    """A calibration cannot be used; says which file, what was wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured of one weights file.

    ``ranges`` has the smallest and the largest response of each layer, and of the normalised ``images``,
    over ``range_images`` training images. ``accuracy`` is top-1 by precision (:func:`accuracy_key`) over
    ``test_images`` images, as the engines that serve it compute. ``check_logits`` are the fp32 logits of the
    images of :mod:`rootmodels.check_images`.
    """

    variant: str
    weights_sha256: str
    range_images: int
    ranges: dict[str, Range]
    test_images: int = 0
    accuracy: dict[str, float] = field(default_factory=dict)
    check_logits: list[list[float]] = field(default_factory=list)


def accuracy_key(precision: str, weight_bits: int = 8) -> str:
    """Under which name a calibration keeps the accuracy in ``precision``, with weights of ``weight_bits``."""
    return f"int8_{weight_bits}bit" if precision == "int8" and weight_bits != 8 else precision


def calibration_path(weights: Path) -> Path:
    """Where the calibration of the weights file ``weights`` is, if there is one."""
    return weights.with_suffix(".calibration.json")


def file_sha256(path: Path) -> str:
    """Hash of the file at ``path``, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_calibration(weights: Path) -> Calibration:
    """The calibration of the weights file ``weights``.

    Raises:
        CalibrationError: if there is none, it cannot be read, or it is of other weights.
    """
    path = calibration_path(weights)
    remedy = f"run python -m rootserve.server.calibrate {weights.stem} --data DIR"
    try:
        content = json.loads(path.read_text())
        ranges = {key: (float(low), float(high)) for key, (low, high) in content["ranges"].items()}
        calibration = Calibration(**content | {"ranges": ranges})
        if not all(low < high for low, high in ranges.values()):
            raise ValueError("a range is empty")
    except FileNotFoundError:
        raise CalibrationError(f"{weights} has no {path.name} beside it: {remedy}") from None
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CalibrationError(f"{path} cannot be used ({error}): {remedy}") from error
    if calibration.weights_sha256 != file_sha256(weights):
        raise CalibrationError(f"{path} was measured with other weights than {weights}: {remedy}")
    return calibration


def write_calibration(weights: Path, calibration: Calibration) -> None:
    """Write ``calibration`` beside ``weights``, all or nothing."""
    path = calibration_path(weights)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(calibration)) + "\n")
    partial.replace(path)
