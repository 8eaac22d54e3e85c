"""What tests send with tritonclient."""

import tritonclient.grpc as triton

from tests.support.server_process import plain_images


def tensor(value: int, rows: int = 1) -> triton.InferInput:
    """Images of one value, of which the fake engine gives the mean."""
    images = plain_images(rows, value)
    made = triton.InferInput("images", list(images.shape), "UINT8")
    made.set_data_from_numpy(images)
    return made
