"""tritonclient.grpc.aio: calls side by side, a stream, a time limit and an error.

python benchmarks/clients/triton_aio.py ADDRESS
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import tritonclient.grpc.aio as triton
from cat import MODEL, check, pixels
from tritonclient.utils import InferenceServerException


async def main(address: str) -> None:
    """Ask 100 times at once, then 20 times over a stream."""
    images = triton.InferInput("images", [1, 3, 32, 32], "UINT8")
    images.set_data_from_numpy(pixels())
    async with triton.InferenceServerClient(address) as client:
        print("ready", await client.is_server_ready(), await client.is_model_ready(MODEL))
        calls = [client.infer(MODEL, [images], client_timeout=30) for _ in range(100)]
        answers = await asyncio.gather(*calls)
        print("infer", {check(answer.as_numpy("logits")) for answer in answers}, len(answers))

        async def requests() -> AsyncIterator[dict[str, object]]:
            for number in range(20):
                yield {"model_name": MODEL, "inputs": [images], "request_id": str(number)}

        ids = []
        async for result, error in client.stream_infer(requests()):
            assert error is None, error
            check(result.as_numpy("logits"))
            ids.append(int(result.get_response().id))
        assert ids == list(range(20)), ids
        print("stream_infer", len(ids), "answers in order")
        for name, call in {
            "unknown model": client.infer("nobody", [images]),
            "a millionth of a second": client.infer(MODEL, [images], client_timeout=1e-6),
        }.items():
            try:
                await call
                raise AssertionError(f"{name}: an answer came, expected an error")
            except InferenceServerException as error:
                print(f"{name}: {error}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
