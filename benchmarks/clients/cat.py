"""The picture that every client here sends, and what it should come back as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PATH = Path(__file__).resolve().parents[2] / "examples" / "images" / "cat.png"
MODEL = "nin-root-4"
CLASS = 3
"""CIFAR-10's number of "cat"."""


def pixels() -> NDArray[np.uint8]:
    """One image, [1, 3, 32, 32], RGB."""
    return np.asarray(Image.open(PATH).convert("RGB")).transpose(2, 0, 1)[None].copy()


def check(logits: NDArray[np.float32]) -> str:
    """What ``logits`` [rows, 10] say of each row, for people.

    Raises:
        AssertionError: if one of the rows is no cat.
    """
    found = logits.argmax(axis=-1).tolist()
    assert found == [CLASS] * len(found), f"classes {found} came, expected only {CLASS}"
    return f"{len(found)} x class {CLASS} (cat), logit {logits.max():.2f}"
