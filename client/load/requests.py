"""The requests of a load run, serialised before it starts so that sending costs little."""

import numpy as np
from numpy.typing import NDArray

from client.channel import MAX_MESSAGE_BYTES
from client.errors import InputError
from client.load.options import LoadOptions
from client.wire import build_request

POOL_SIZE = 64
# Large pictures get a smaller pool rather than the machine's memory.
POOL_BYTES = 128 * 1024 * 1024
_ENVELOPE_BYTES = 64 * 1024


def random_images(count: int, size: int, seed: int) -> NDArray[np.uint8]:
    """Random images uint8 [count, 3, size, size], the same for the same seed."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 3, size, size), np.uint8)


def images_needed(rows: int, image_bytes: int) -> int:
    """How many distinct images a pool of requests with so many rows wants."""
    return rows * _pool_size(rows, image_bytes)


def serialized_requests(options: LoadOptions, images: NDArray[np.uint8]) -> list[bytes]:
    """Up to 64 serialised requests cut from images [N, 3, H, W] one after the other.

    When there are fewer images than the pool needs they come again from the first.

    Raises:
        InputError: The images have another shape, there are none, or a request passes 64 MiB.
    """
    if images.ndim != 4 or len(images) == 0:
        raise InputError(f"images of shape {list(images.shape)}: expected [N, 3, H, W], N >= 1")
    image_bytes = images[0].nbytes
    if options.rows * image_bytes + _ENVELOPE_BYTES > MAX_MESSAGE_BYTES:
        most = (MAX_MESSAGE_BYTES - _ENVELOPE_BYTES) // image_bytes
        raise InputError(
            f"rows {options.rows}: a request may have 64 MiB, which is {most:,} images of this size"
        )
    pool = []
    for n in range(_pool_size(options.rows, image_bytes)):
        picked = np.arange(n * options.rows, (n + 1) * options.rows) % len(images)
        request = build_request(
            options.model,
            images[picked],
            priority=options.priority,
            deadline_s=options.deadline_s,
        )
        pool.append(bytes(request.SerializeToString()))
    return pool


def _pool_size(rows: int, image_bytes: int) -> int:
    return max(1, min(POOL_SIZE, POOL_BYTES // (rows * image_bytes)))
