"""Engine ``fake``: answers anyone can compute, and faults on request. For tests and benchmarks.

Logit c of an image is its mean pixel value plus c. An image whose first bytes spell a command makes
the engine misbehave: ``raise`` fails the batch, ``exit`` kills the worker, ``hang`` never returns,
``sleep`` and a byte n waits n times 10 ms. No service should run it.
"""

from __future__ import annotations

import os
import time

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from rootserve.server.engines.base import Images, LoadSpec, Precision, SideBySide


class FakeEngine(SideBySide):
    """Computes nothing but means."""

    name = "fake"
    precision: Precision = "fp32"

    def __init__(self, classes: int, streams: int = 1) -> None:
        self._classes = classes
        self.streams = streams

    @override
    def run(self, images: Images) -> NDArray[np.float32]:
        for image in images:
            _obey(image.reshape(-1)[:6].astype(np.uint8).tobytes())
        means = images.reshape(len(images), -1).mean(axis=1, dtype=np.float64)
        logits = means[:, None] + np.arange(self._classes)
        result: NDArray[np.float32] = logits.astype(np.float32)
        return result

    @override
    def run_beside(self, images: Images) -> NDArray[np.float32]:
        return self.run(images)


def _obey(command: bytes) -> None:
    if command.startswith(b"raise"):
        raise RuntimeError("the fake engine was asked to raise")
    if command.startswith(b"exit"):
        os._exit(70)
    if command.startswith(b"hang"):
        while True:
            time.sleep(3600)
    if command.startswith(b"sleep"):
        time.sleep(command[5] * 0.01)


def load(spec: LoadSpec) -> FakeEngine:
    """Load nothing but the number of classes."""
    return FakeEngine(spec.classes(), spec.threads)
