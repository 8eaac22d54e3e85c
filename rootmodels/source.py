"""A trained network that others are made of: a model file, or weights of a family's variant, as a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rootmodels.layers import network_layers
from rootmodels.model import Model
from rootmodels.model_file import read_model
from rootmodels.model_graph import graph_content, read_graph
from rootmodels.parameters import load_tensors
from rootmodels.tensors import Tensors, tensor_shapes
from rootmodels.weights_info import class_names, image_size, weights_path


@dataclass(frozen=True, slots=True)
class Source:
    """A trained network: where it is, what it is, and the tensors of its training form."""

    path: Path
    model: Model
    tensors: Tensors


def find_source(name: str, folder: Path) -> Path:
    """The file called ``name``, or the weights in ``folder`` of the variant or model called so."""
    path = Path(name)
    return path if path.suffix == ".safetensors" else weights_path(name, folder)


def read_source(path: Path) -> Source:
    """What is at ``path``, with its layers and tensors called as in a model file.

    Raises:
        WeightsError: if it is neither a model file nor weights of a variant.
    """
    tensors, variant, info = load_tensors(path)
    if variant.home is not None:
        return Source(path, read_model(path), tensors)
    size, classes = image_size(variant, info), class_names(variant, info)
    layers = network_layers(variant, size, len(classes))
    named = read_graph(graph_content(layers), size, len(classes))
    keys = zip(tensor_shapes(layers), tensor_shapes(named), strict=True)
    renamed = {new: tensors[old] for (old, _), (new, _) in keys}
    return Source(path, Model.of(variant, named, info), renamed)
