"""A few real images, with which an engine shows that it computes what it should. No torch.

32 images of the CIFAR-10 test set (Krizhevsky 2009), drawn at random from ``examples/cifar10-sample.parquet``
and kept as pixels in ``pretrained/check-images.npz``, because a server has no data set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CHECK_IMAGES = Path(__file__).parent / "pretrained" / "check-images.npz"


def check_images(size: int, count: int = 32) -> NDArray[np.uint8]:
    """The first ``count``, uint8 [count, 3, size, size], RGB; the nearest pixel where ``size`` is not 32."""
    with np.load(CHECK_IMAGES) as file:
        images: NDArray[np.uint8] = file["images"][:count]
    nearest = np.arange(size) * images.shape[2] // size
    return images[:, :, nearest][:, :, :, nearest]
