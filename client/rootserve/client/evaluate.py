"""Top-1 accuracy of a served model, measured through the service."""

import asyncio

import numpy as np
from numpy.typing import NDArray

from rootserve.client.errors import InputError
from rootserve.client.inference import AsyncClient


async def accuracy(
    client: AsyncClient,
    model: str,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    rows: int = 25,
    concurrency: int = 4,
) -> float:
    """Share of the images, 0..1, whose largest logit is that of their label.

    Args:
        client: A connected client.
        model: Name of the model.
        images: uint8 [N, 3, H, W].
        labels: int64 [N].
        rows: Images per request; the last request may have fewer.
        concurrency: Requests under way at once.

    Raises:
        InputError: There are no images, or not one label for each, or a setting is below 1.
        ServerError: A request failed; the others are called off.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise InputError(f"{len(images)} images and {len(labels)} labels: expected one each")
    if rows < 1 or concurrency < 1:
        raise InputError(f"rows {rows}, concurrency {concurrency}: expected at least 1 of each")
    starts = iter(range(0, len(images), rows))

    async def caller() -> int:
        correct = 0
        # All callers draw from one iterator: whoever is free takes the next request.
        for start in starts:
            answer = await client.infer(model, images[start : start + rows])
            top = answer.logits.argmax(axis=1)
            correct += int((top == labels[start : start + rows]).sum())
        return correct

    callers = [asyncio.create_task(caller()) for _ in range(concurrency)]
    try:
        correct = sum(await asyncio.gather(*callers))
    finally:
        for task in callers:
            task.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    return correct / len(images)
