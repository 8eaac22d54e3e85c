"""Model files for tests: small networks of the kinds of layers there are, with random parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from rootmodels.layer import IMAGES, Layer
from rootmodels.model import Model
from rootmodels.model_content import write_content
from rootmodels.model_file import write_model
from rootmodels.parameters import LayerParameters
from rootmodels.weights_info import weights_path

Content = dict[str, Any]
"""A model file's metadata."""

SIZE = 32
CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")


def conv(
    name: str, source: str, taken: int, made: int, size: int, kernel: int, **more: Any
) -> Layer:
    """A convolution; ``padding`` keeps the size unless it is given."""
    more = {"padding": kernel // 2, "bias": True} | more
    return Layer(name, "conv", kernel, taken, made, size, (source,), **more)


def simple_layers(classes: int = len(CLASSES), width: int = 16) -> tuple[Layer, ...]:
    """Two convolutions, of which the second has groups, a pooling, a mean and a linear layer."""
    return (
        conv("features.conv1", IMAGES, 3, width, 32, 3, activation="relu"),
        Layer("pool", "max_pool", 2, width, width, 16, ("features.conv1",), stride=2),
        conv("features.conv2", "pool", width, width, 16, 3, groups=4, activation="relu"),
        Layer("mean", "global_avg_pool", 16, width, width, 1, ("features.conv2",)),
        Layer("linear", "linear", 1, width, classes, 1, ("mean",), bias=True),
    )


def all_kinds() -> tuple[Layer, ...]:
    """A network with each kind of layer, each activation, and all that a convolution can be."""
    c8 = {"in_channels": 8, "out_channels": 8}
    return (
        conv("stem", IMAGES, 3, 8, 32, 3, activation="hardswish"),
        Layer("wide", "conv", (1, 7), 8, 8, 32, ("stem",), padding=(0, 3), bias=True,
              activation="silu"),
        Layer("uneven", "conv", 3, 8, 8, 16, ("wide",), stride=2, padding=(0, 0, 1, 1), bias=True,
              activation="relu6"),
        conv("dilated", "uneven", 8, 8, 16, 3, padding=2, dilation=2, groups=2, activation="gelu"),
        conv("depthwise", "dilated", 8, 8, 16, 3, groups=8, activation="gelu_tanh"),
        Layer("scaled", "affine", 1, size=16, inputs=("depthwise",), bias=True,
              activation="sigmoid", **c8),
        Layer("sum", "add", 1, size=16, inputs=("scaled", "uneven"), activation="relu", **c8),
        Layer("squeeze", "adaptive_avg_pool", 16, size=1, inputs=("sum",), **c8),
        conv("gate", "squeeze", 8, 8, 1, 1, activation="hardsigmoid"),
        Layer("excited", "multiply", 1, size=16, inputs=("sum", "gate"), **c8),
        Layer("left", "slice", 1, 8, 4, 16, ("excited",)),
        Layer("right", "slice", 1, 8, 4, 16, ("excited",), start=4),
        Layer("both", "concat", 1, 8, 8, 16, ("right", "left")),
        Layer("mixed", "shuffle", 1, size=16, inputs=("both",), groups=2, **c8),
        Layer("large", "max_pool", 3, size=8, inputs=("mixed",), stride=2, ceil=True, **c8),
        Layer("counted", "avg_pool", 3, size=8, inputs=("large",), padding=1, count_padding=True, **c8),
        Layer("uncounted", "avg_pool", 3, size=4, inputs=("counted",), stride=2, padding=1, ceil=False,
              **c8),
        Layer("shrunk", "adaptive_avg_pool", 4, size=(3, 2), inputs=("uncounted",), **c8),
        Layer("active", "identity", 1, size=(3, 2), inputs=("shrunk",), activation="silu", **c8),
        Layer("same", "identity", 1, size=(3, 2), inputs=("active",), **c8),
        Layer("flat", "flatten", 1, 8, 48, 1, ("same",)),
        Layer("hidden", "linear", 1, 48, 24, 1, ("flat",), bias=True, activation="relu"),
        Layer("vector", "affine", 1, 24, 24, 1, ("hidden",), bias=True),
        Layer("again", "unflatten", 1, 24, 6, 2, ("vector",)),
        Layer("mean", "global_avg_pool", 2, 6, 6, 1, ("again",)),
        Layer("head", "linear", 1, 6, len(CLASSES), 1, ("mean",), bias=True),
    )  # fmt: skip


def model_of(name: str, layers: Sequence[Layer] = (), **more: Any) -> Model:
    """A model of images of 32 pixels."""
    fields: dict[str, Any] = {
        "mean": (120.0, 110.0, 100.0),
        "std": (60.0, 61.0, 62.0),
        "image_size": SIZE,
        "classes": CLASSES,
        "crop": Fraction(7, 8),
        "accuracy": 0.75,
        "test_images": 1000,
        "tested_on": "a thousand photographs",
        "provenance": {"from": "a test"},
    }
    return Model(name=name, layers=tuple(layers) or simple_layers(), **fields | more)


def random_parameters(layers: Sequence[Layer], seed: int = 0) -> dict[str, LayerParameters]:
    """Some that let what goes through a network neither grow nor vanish."""
    rng = np.random.default_rng(seed)
    found = {}
    for layer in layers:
        if layer.has_parameters:
            shape = layer.weight_shape
            std = (2 / np.prod(shape[1:])) ** 0.5
            weight = rng.normal(0.0 if layer.has_weights else 1.0, std, shape)
            bias = rng.normal(0.0, 0.2, shape[0])
            found[layer.name] = LayerParameters(weight.astype("f4"), bias.astype("f4"))
    return found


def write_small(folder: Path, model: Model, seed: int = 0) -> Path:
    """``model`` with random parameters as a file in ``folder``."""
    path = weights_path(model.name, folder)
    write_model(path, model, random_parameters(model.layers, seed))
    return path


def content_of(model: Model) -> Content:
    """Its metadata."""
    content: Content = json.loads(write_content(model))
    return content


STRANGE = (
    None, True, -1, 0, 1, 2, 3, 7, 2**31, 2**63, 10**40, 1.5, -0.0, 1e300, "", "images", "conv", "add",
    "flatten", "../x", "\x00", "\ud800", [], {}, [1], [0, 0], [1, 2, 3, 4], ["images"], {"a": 1},
)  # fmt: skip


def mutated(content: Content, rng: np.random.Generator) -> Content:
    """One to three changes: a value becomes a strange one or goes, a layer moves, comes twice or goes."""
    for _ in range(rng.integers(1, 4)):
        layers = content.get("layers")
        target = content
        if isinstance(layers, list) and layers and rng.random() < 0.8:
            chosen = layers[rng.integers(len(layers))]
            if rng.random() < 0.2:
                layers.remove(chosen)
                if rng.random() < 0.7:
                    layers.insert(int(rng.integers(len(layers) + 1)), chosen)
                continue
            target = chosen if isinstance(chosen, dict) else content
        key = str(rng.choice([*target, "kind", "kernel", "padding"]))
        if rng.random() < 0.15:
            target.pop(key, None)
        else:
            target[key] = STRANGE[rng.integers(len(STRANGE))]
    return content
