"""KServe's InferenceGRPCClient, with typed contents and with raw ones.

python benchmarks/clients/kserve_client.py ADDRESS
"""

from __future__ import annotations

import asyncio
import logging
import sys

import grpc
from cat import MODEL, check, pixels
from kserve import InferenceGRPCClient, InferInput, InferRequest


async def main(address: str) -> None:
    """Health, both kinds of content, and an error."""
    async with InferenceGRPCClient(address) as client:
        print("live", await client.is_server_live(), "ready", await client.is_server_ready())
        print("model ready", await client.is_model_ready(MODEL))
        for raw in (False, True):
            tensor = InferInput("images", [1, 3, 32, 32], "UINT8")
            tensor.set_data_from_numpy(pixels(), binary_data=raw)
            request = InferRequest(MODEL, [tensor], request_id="a-1")
            answer = await client.infer(request)
            print("raw" if raw else "typed", answer.id, check(answer.outputs[0].as_numpy()))
        logging.getLogger("kserve").setLevel(logging.CRITICAL)  # it logs what it raises
        try:
            await client.infer(InferRequest("nobody", [tensor]))
            raise AssertionError("an unknown model answered")
        except grpc.aio.AioRpcError as error:
            print(f"unknown model: {error.code().name}: {error.details()}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
