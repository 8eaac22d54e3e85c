"""What one writes on the first day: grpcio's threads, PyTorch as it comes, one request at a time.

Speaks enough of the protocol for the same client to load it: ``python -m benchmarks.reference.naive_server``.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import torch
from tritonclient.grpc import service_pb2_grpc

from benchmarks.reference.protocol import Described, logits_response
from rootmodels.weights import load_weights
from rootmodels.weights_info import weights_path


class NaiveService(Described):
    """Computes each request by itself, in the thread that brought it."""

    def __init__(self, model: str) -> None:
        self._model = load_weights(weights_path(model))[0].eval()

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer one request."""
        pixels = np.frombuffer(request.raw_input_contents[0], np.uint8)
        with torch.inference_mode():
            logits = self._model(torch.tensor(pixels.reshape(-1, 3, 32, 32))).numpy()
        return logits_response(request, logits)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    args = parser.parse_args()
    server = grpc.server(ThreadPoolExecutor(64))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(NaiveService(args.model), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening grpc=127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
