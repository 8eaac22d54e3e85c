"""The contract of an engine, on one screen.

An engine is one model on one device, ready to compute. A kind of engine is a function that loads one;
:data:`rootserve.server.engines.registry.ENGINES` lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rootmodels.calibration import Calibration, CalibrationError, read_calibration
from rootmodels.family import Variant
from rootmodels.model_file import open_weights
from rootmodels.parameters import FoldedNetwork, load_network, random_network
from rootmodels.processor import cpu_computes_bf16
from rootmodels.variants import get_variant
from rootmodels.weights_info import WeightsError, WeightsInfo, class_names, image_size

Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""What an engine computes in: fp16 rounds weights and responses to 11 significant bits, bf16 to 8; int8 to
256 levels between bounds that were measured."""

PrecisionSetting = Precision | Literal["auto"]
"""What an operator asks for."""

Images = NDArray[np.uint8] | NDArray[np.float32]
"""[rows, 3, H, W], RGB, 0..255 whether uint8 or float32."""


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What an engine loads and where. ``weights`` is None for a model without trained weights."""

    model: str
    weights: Path | None
    device: str
    threads: int
    precision: Precision = "fp32"

    def network(self) -> FoldedNetwork:
        """The layers and their folded parameters; random ones where there are no weights.

        Raises:
            WeightsError: if the file is not one with weights of ``model``.
        """
        variant, _ = self._open()
        if self.weights is None:
            return random_network(variant)
        return load_network(self.weights, variant)

    def image_size(self) -> int:
        """Height and width of the images, in pixels.

        Raises:
            WeightsError: if the weights cannot be used.
        """
        return image_size(*self._open())

    def classes(self) -> int:
        """Number of logits.

        Raises:
            WeightsError: if the weights cannot be used.
        """
        return len(class_names(*self._open()))

    def _open(self) -> tuple[Variant, WeightsInfo | None]:
        """What it is a network of, and what the weights say."""
        if self.weights is None:
            return get_variant(self.model), None
        variant, info = open_weights(self.weights)
        if variant.name != self.model:
            raise WeightsError(
                f"{self.weights} holds weights of {variant.name}, not of {self.model}"
            )
        return variant, info

    def check_processor(self) -> None:
        """Refuse a precision that this processor computes more slowly than fp32, or not at all.

        Raises:
            EngineError: saying so.
        """
        if self.device == "cpu" and self.precision == "bf16" and not cpu_computes_bf16():
            raise EngineError("this processor does not compute in bf16; use precision fp32")

    def calibration(self) -> Calibration:
        """What was measured of the weights.

        Raises:
            EngineError: if nobody measured these weights.
        """
        if self.weights is None:
            raise EngineError(f"{self.model} has no trained weights, so nothing was measured of it")
        try:
            return read_calibration(self.weights)
        except CalibrationError as error:
            raise EngineError(str(error)) from error


class Engine(Protocol):
    """A loaded model. Attributes name it in answers and metrics."""

    name: str
    precision: Precision

    def run(self, images: Images) -> NDArray[np.float32]:
        """Logits, [rows, classes]. Called from one thread only."""
        ...


@runtime_checkable
class SideBySide(Engine, Protocol):
    """An engine that computes several batches at a time, on one set of weights and one pool of threads."""

    streams: int
    """Images that it computes at a time, each with threads of its own, as long as there are so many."""

    def run_beside(self, images: Images) -> NDArray[np.float32]:
        """Logits as of ``run``. Several threads may call it at once, but not while one calls ``run``.

        Images of all batches are begun in the order in which the batches came.
        """
        ...


Loader = Callable[[LoadSpec], Engine]


class EngineError(RuntimeError):
    """An engine cannot load a model on a device; one line that says why."""
