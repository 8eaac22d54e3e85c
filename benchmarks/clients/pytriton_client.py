"""PyTriton's clients: for threads, for futures, for asyncio, and the one for decoupled models.

python benchmarks/clients/pytriton_client.py ADDRESS
"""

from __future__ import annotations

import asyncio
import sys
import warnings

import numpy as np
from cat import MODEL, check, pixels
from pytriton.client import (
    AsyncioModelClient,
    DecoupledModelClient,
    FuturesModelClient,
    ModelClient,
)
from pytriton.client.exceptions import PyTritonClientError
from pytriton.client.warnings import NotSupportedTimeoutWarning


def threads(url: str) -> None:
    """A batch, a sample, inputs by name; what an unknown model gives."""
    with ModelClient(url, MODEL) as client:
        print("batches up to", client.model_config.max_batch_size)
        print("infer_batch", check(client.infer_batch(pixels().repeat(4, axis=0))["logits"]))
        print("infer_sample", check(client.infer_sample(images=pixels()[0])["logits"][None]))
    try:
        with ModelClient(url, "nobody", init_timeout_s=3) as client:
            client.infer_batch(pixels())
        raise AssertionError("an unknown model answered")
    except PyTritonClientError as error:
        print(f"unknown model: {type(error).__name__}: {error}")
    try:
        with DecoupledModelClient(url, MODEL) as client:
            client.infer_batch(pixels())
        raise AssertionError("a decoupled client took the model")
    except PyTritonClientError as error:
        print(f"decoupled: {type(error).__name__}: {error}")


def futures(url: str) -> None:
    """Twenty, by one thread: the client makes those of further threads without the ``grpc://`` of its URL."""
    with FuturesModelClient(url, MODEL, max_workers=1) as client:
        answers = [client.infer_batch(pixels()) for _ in range(20)]
        logits = np.concatenate([answer.result(timeout=30)["logits"] for answer in answers])
        print("futures", check(logits))


async def side_by_side(url: str) -> None:
    """Twenty at once, on one event loop."""
    async with AsyncioModelClient(url, MODEL) as client:
        answers = await asyncio.gather(*(client.infer_batch(pixels()) for _ in range(20)))
        print("asyncio", check(np.concatenate([answer["logits"] for answer in answers])))


if __name__ == "__main__":
    warnings.simplefilter("ignore", NotSupportedTimeoutWarning)  # for each client made
    (address,) = sys.argv[1:]
    threads(f"grpc://{address}")
    futures(f"grpc://{address}")
    asyncio.run(side_by_side(f"grpc://{address}"))
