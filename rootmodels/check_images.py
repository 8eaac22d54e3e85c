"""A few real images, with which an engine shows that it computes what it should. No torch.

32 images of the CIFAR-10 test set (Krizhevsky 2009), drawn at random from ``examples/cifar10-sample.parquet`` and
kept as pixels in ``pretrained/check-images.npz``, because a server has no data set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CHECK_IMAGES = Path(__file__).parent / "pretrained" / "check-images.npz"


def check_images(size: int) -> NDArray[np.uint8]:
    """[32, 3, size, size], RGB; larger than 32x32 by repeating pixels.

    Raises:
        ValueError: if ``size`` is no multiple of 32.
    """
    with np.load(CHECK_IMAGES) as file:
        images: NDArray[np.uint8] = file["images"]
    factor, rest = divmod(size, images.shape[2])
    if rest or not factor:
        raise ValueError(f"check images of {size} pixels were asked for, expected a multiple of 32")
    return images.repeat(factor, axis=2).repeat(factor, axis=3)
