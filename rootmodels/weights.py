"""Weights on disk: safetensors only, with metadata that says where they came from.

A file holds the training form, so that training can go on from it. Convolution weights are stored in
fp16, the vectors of batch normalisation in fp32; a loaded module computes in fp32.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from rootmodels.model import Model
from rootmodels.model_file import write_trained
from rootmodels.network import Network
from rootmodels.parameters import load_tensors
from rootmodels.weights_info import METADATA_KEY, WeightsInfo, class_names, image_size, publish


def save_weights(path: Path, model: Network, info: WeightsInfo, *, served: bool = True) -> None:
    """Write ``model`` (training form) and ``info`` to ``path``, all or nothing.

    A network that a file describes becomes such a file again, whose name is that of the network if it is to
    be ``served`` from there.

    Raises:
        WeightsError: if that one could not be read again.
    """
    tensors = {
        key: (value.half() if value.ndim > 1 else value).contiguous().cpu()
        for key, value in model.state_dict().items()
    }
    if model.variant.home is not None:
        arrays = {key: value.numpy() for key, value in tensors.items()}
        write_trained(path, Model.of(model.variant, model.layers, info), arrays, served=served)
        return
    metadata = {METADATA_KEY: json.dumps(info.content())}
    publish(path, lambda partial: save_file(tensors, partial, metadata))


def load_weights(path: Path) -> tuple[Network, WeightsInfo]:
    """The module in training form (``eval`` mode) with the weights at ``path``.

    Raises:
        WeightsError: if the file is unreadable or its tensors are not those of its network.
    """
    tensors, variant, info = load_tensors(path)
    model = Network(variant, image_size(variant, info), len(class_names(variant, info)))
    state = model.state_dict()
    for key, tensor in tensors.items():
        state[key].copy_(torch.from_numpy(tensor))
    return model.eval(), info
