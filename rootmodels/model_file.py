"""Model files: a network with all that is needed to serve it, in one safetensors file ``NAME.safetensors``.

Its metadata say under ``rootserve.model``, as JSON, what :class:`rootmodels.model.Model` has: the layers,
how images are normalised, what the logits stand for, how accurate it is, where it comes from. The tensors are
those of its layers. Nothing in such a file is code, and reading one either gives a network that every engine
can build, or ends with a WeightsError.

Weights of a variant of a family (:mod:`rootmodels.weights`) are other files, since the family knows the
layers. :func:`open_weights` takes both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rootmodels.family import Variant
from rootmodels.model import Model
from rootmodels.model_content import read_content, write_content
from rootmodels.model_graph import layer_path
from rootmodels.tensors import Tensors, check_shapes, check_tensors
from rootmodels.variants import VARIANTS, get_variant
from rootmodels.weights_info import (
    WeightsError,
    WeightsInfo,
    publish,
    read_info,
    weights_path,
    with_weights,
)

MODEL_KEY = "rootserve.model"

_LARGEST_HEADER = 16 * 2**20
"""Bytes of names, shapes and metadata; a network of a thousand layers has some hundred thousand."""

_DTYPES, _COUNTERS = ("F16", "F32"), ("I64",)
"""What tensors may be in, as safetensors call it; whole numbers count the batches of a normalisation."""

_LONGEST_REASON = 600


class WeightAndBias(Protocol):
    """The parameters of a layer, as :class:`rootmodels.parameters.LayerParameters` has them."""

    @property
    def weight(self) -> NDArray[np.float32]:
        """As :attr:`rootmodels.layer.Layer.weight_shape`."""
        ...

    @property
    def bias(self) -> NDArray[np.float32]:
        """[out]."""
        ...


def model_names(folder: Path) -> list[str]:
    """The models whose files are in ``folder``, sorted; without weights of a family's variants.

    Raises:
        WeightsError: if a file there is not readable. Other people's safetensors files are left out.
    """
    return [
        path.stem
        for path in sorted(folder.glob("*.safetensors"))
        if path.stem not in VARIANTS and path.is_file() and MODEL_KEY in _read_metadata(path)
    ]


def names_with_weights(folder: Path, names: Sequence[str] = ()) -> list[str]:
    """``names``, each of a variant or of a model in ``folder``; without any, all that have weights there.

    Raises:
        UnknownVariantError: for a name that is neither.
        WeightsError: if no name came and there are no weights.
    """
    for name in names:
        if not weights_path(name, folder).is_file():
            get_variant(name)
    found = list(names) or [*with_weights(folder), *model_names(folder)]
    if not found:
        raise WeightsError(f"{folder} holds no weights of a known variant, and no model file")
    return found


def open_weights(path: Path) -> tuple[Variant, WeightsInfo]:
    """What the file at ``path`` is a network of, and what it says of itself: a model file, or weights.

    Raises:
        WeightsError: if it is neither.
    """
    if MODEL_KEY not in _read_metadata(path):
        info = read_info(path)
        return get_variant(info.variant), info
    model = read_model(path)
    return model.variant, model.info


def read_model(path: Path) -> Model:
    """The model in the file at ``path``; of its tensors, names, shapes and number formats are looked at.

    Raises:
        WeightsError: saying what is wrong with the file, and where.
    """
    metadata = _read_metadata(path)
    if MODEL_KEY not in metadata:
        raise WeightsError(f"{path} has no {MODEL_KEY!r} metadata; expected a model file")
    try:
        model = read_content(metadata[MODEL_KEY])
        _check_name(model)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: {_short(error)}") from None
    _check_header(path, model)
    return model


def write_model(path: Path, model: Model, parameters: Mapping[str, WeightAndBias]) -> None:
    """Write ``model`` in its inference form: each layer with parameters has a weight and a bias.

    Args:
        path: ``NAME.safetensors``.
        model: Its layers' paths and normalisations are left out.
        parameters: Of each convolution, linear and affine layer, by its name.

    Raises:
        WeightsError: if the file could not be read again: a field is wrong, or parameters do not fit.
    """
    folded = tuple(
        replace(layer, bias=layer.has_parameters, norm="", path="") for layer in model.layers
    )
    tensors = {
        f"{layer_path(name)}.{part}": getattr(own, part)
        for name, own in parameters.items()
        for part in ("weight", "bias")
    }
    write_trained(path, replace(model, layers=folded), tensors)


def write_trained(path: Path, model: Model, tensors: Tensors, *, served: bool = True) -> None:
    """Write ``model`` in its training form, with the ``tensors`` of its module's state dict.

    What is not to be ``served`` from there may have any name.

    Raises:
        WeightsError: as :func:`write_model`.
    """
    content = check_model(path, model)
    read = read_content(content)
    if served and path.name != weights_path(model.name, path.parent).name:
        raise WeightsError(f"{path} was not written: a file of {model.name} has another name")
    check_tensors(f"{path} was not written", tensors, model.name, read.layers)
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    publish(path, lambda partial: save_file(contiguous, partial, {MODEL_KEY: content}))


def check_model(path: Path, model: Model) -> str:
    """What a file of ``model`` says of it, as JSON.

    Raises:
        WeightsError: if it could not be read again; ``path`` is where it was to be.
    """
    try:
        content = write_content(model)
        _check_name(read_content(content))
    except ValueError as error:
        raise WeightsError(f"{path} was not written: {_short(error)}") from None
    return content


def _check_name(model: Model) -> None:
    """Refuse a name that stands for something else; and whatever a family does not take.

    Raises:
        ValueError: saying so.
    """
    if model.name in VARIANTS:
        family = VARIANTS[model.name].family
        text = f"name is {model.name!r}, a variant of the family {family}; expected another name"
        raise ValueError(text)
    model.variant.name  # noqa: B018 - the family that it makes refuses what it cannot be of


def _read_metadata(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
        if size > _LARGEST_HEADER:
            raise WeightsError(
                f"{path} is not a readable safetensors file: it would have a header of {size} bytes, "
                f"expected at most {_LARGEST_HEADER}"
            )
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except FileNotFoundError as error:
        raise WeightsError(f"{path} does not exist") from error
    except (OSError, SafetensorError) as error:
        text = f"{path} is not a readable safetensors file: {_short(error)}"
        raise WeightsError(text) from error


def _check_header(path: Path, model: Model) -> None:
    """Refuse tensors that are not those of ``model``, without reading their values."""
    with safe_open(path, framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        shapes = {name: tuple(one.get_shape()) for name, one in slices.items()}
        dtypes = {name: one.get_dtype() for name, one in slices.items()}
    check_shapes(str(path), shapes, model.name, model.layers)
    for name, dtype in dtypes.items():
        allowed = _COUNTERS if name.endswith(".num_batches_tracked") else _DTYPES
        if dtype not in allowed:
            raise WeightsError(
                f"{path}: tensor {name} is in {dtype}, expected one of {', '.join(allowed)}"
            )


def _short(error: Exception) -> str:
    """What it says, in one line that fits into an answer."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 3]}..."
