"""Weights on disk: safetensors only, with metadata that says where they came from.

A file holds the training form, so that training can go on from it. Convolution weights are stored in
fp16, the vectors of batch normalisation in fp32; a loaded module computes in fp32.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from rootmodels.nin import NetworkInNetwork
from rootmodels.variants import get_variant
from rootmodels.weights_info import METADATA_KEY, WeightsError, WeightsInfo, read_info


def save_weights(path: Path, model: NetworkInNetwork, info: WeightsInfo) -> None:
    """Write ``model`` (training form) and ``info`` to ``path``, all or nothing."""
    tensors = {
        key: (value.half() if value.ndim > 1 else value).contiguous().cpu()
        for key, value in model.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={METADATA_KEY: json.dumps(asdict(info))})
    partial.replace(path)


def load_weights(path: Path) -> tuple[NetworkInNetwork, WeightsInfo]:
    """The module in training form (``eval`` mode) with the weights at ``path``.

    Raises:
        WeightsError: if the file is unreadable or its tensors are not those of its variant.
    """
    info = read_info(path)
    model = NetworkInNetwork(get_variant(info.variant))
    expected = model.state_dict()
    tensors = load_file(path)
    for key in sorted(expected.keys() | tensors.keys()):
        if key not in tensors or key not in expected:
            side = "is missing from" if key not in tensors else "should not be in"
            raise WeightsError(f"{path}: tensor {key} {side} weights of {info.variant}")
        if tensors[key].shape != expected[key].shape:
            raise WeightsError(
                f"{path}: tensor {key} is {list(tensors[key].shape)}, "
                f"{info.variant} has {list(expected[key].shape)}"
            )
        if not torch.isfinite(tensors[key]).all():
            raise WeightsError(f"{path}: tensor {key} has values that are not finite")
    model.load_state_dict({key: value.to(expected[key].dtype) for key, value in tensors.items()})
    return model.eval(), info
