"""Callers that speak gRPC, in a process of their own: ``python -m benchmarks.callers ADDRESS ...``.

Prints the images per second that were answered.
"""

from __future__ import annotations

import grpc
import uvloop
from tritonclient.grpc import service_pb2_grpc

from benchmarks.closed_loop import Load, images_per_second, random_images, read_options
from tests.support.server_process import infer_request


async def generate(address: str, model: str, load: Load, seconds: float) -> float:
    """Images per second that the callers get answered over one connection."""
    request = infer_request(model, random_images(load.rows))
    async with grpc.aio.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        return await images_per_second(lambda: stub.ModelInfer(request), load, seconds)


if __name__ == "__main__":
    print(uvloop.run(generate(*read_options(__doc__))))
