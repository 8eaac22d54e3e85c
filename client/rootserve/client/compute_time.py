"""How long a model computes, by the server's own clock: neither the network nor this client is in it."""

import statistics

import numpy as np
from numpy.typing import NDArray

from rootserve.client.errors import MalformedAnswer
from rootserve.client.inference import AsyncClient

# Requests of a turn: the first one brings the model's weights back into the caches.
_UNTIMED, _TIMED = 1, 3


async def compute_ms(
    client: AsyncClient, model: str, images: NDArray[np.uint8], used: set[str]
) -> float:
    """Milliseconds per image: the median of a few batches, one under way at a time.

    Args:
        client: A connected client.
        model: Name of the model.
        images: The batch, uint8 [N, 3, H, W].
        used: The names of the workers that computed them are put in.

    Raises:
        MalformedAnswer: The answers carry no timeline.
        ServerError: A request failed.
    """
    times_ms = []
    for _ in range(_UNTIMED + _TIMED):
        timeline = (await client.infer(model, images)).timeline
        if timeline is None:
            raise MalformedAnswer(
                f"the answers of {model} tell no compute_ns and batch_rows: "
                "expected a Rootserve server"
            )
        # Others may share the batch: it is computed as a whole, so its rows are what counts.
        times_ms.append(timeline.compute_s * 1e3 / timeline.batch_rows)
        used.add(timeline.worker)
    return statistics.median(times_ms[_UNTIMED:])
