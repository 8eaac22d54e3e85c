"""tritonclient.utils.shared_memory: images in and logits out through regions of system shared memory.

python benchmarks/clients/triton_shared_memory.py ADDRESS
"""

from __future__ import annotations

import base64
import secrets
import sys

import numpy as np
import tritonclient.grpc as triton
from cat import MODEL, check, pixels
from tritonclient.utils import InferenceServerException, shared_memory

ROWS = 4
IMAGES, LOGITS = ROWS * 3 * 32 * 32, ROWS * 10 * 4


def main(address: str) -> None:
    """Four rows in one request; then what is registered, forgotten and refused."""
    keys = {name: f"/clients-{name}-{secrets.token_hex(4)}" for name in ("in", "out")}
    source = shared_memory.create_shared_memory_region("in", keys["in"], IMAGES)
    target = shared_memory.create_shared_memory_region("out", keys["out"], LOGITS)
    try:
        with triton.InferenceServerClient(address) as client:
            client.register_system_shared_memory("in", keys["in"], IMAGES)
            client.register_system_shared_memory("out", keys["out"], LOGITS)
            print("registered", sorted(client.get_system_shared_memory_status().regions))
            shared_memory.set_shared_memory_region(source, [pixels().repeat(ROWS, axis=0)])
            images = triton.InferInput("images", [ROWS, 3, 32, 32], "UINT8")
            images.set_shared_memory("in", IMAGES)
            output = triton.InferRequestedOutput("logits")
            output.set_shared_memory("out", LOGITS)
            answer = client.infer(MODEL, [images], outputs=[output])
            logits = shared_memory.get_contents_as_numpy(target, np.float32, [ROWS, 10])
            (content,) = answer.get_response().raw_output_contents
            print(len(content), "bytes in the message, in the region", check(logits))
            try:
                client.register_cuda_shared_memory("gpu", base64.b64encode(b"handle"), 0, IMAGES)
                raise AssertionError("a CUDA region was registered")
            except InferenceServerException as error:
                print("CUDA:", error)
            client.unregister_system_shared_memory()
            print("registered", sorted(client.get_system_shared_memory_status().regions))
            try:
                client.infer(MODEL, [images])
                raise AssertionError("a forgotten region was read")
            except InferenceServerException as error:
                print("forgotten:", error)
    finally:
        for handle in (source, target):
            shared_memory.destroy_shared_memory_region(handle)


if __name__ == "__main__":
    main(*sys.argv[1:])
