"""The same engine behind Ray Serve's gRPC proxy: run it with the Python of an environment that has it.

``benchmarks/reference/setup DIR ray`` makes such an environment. Ray is not a dependency of this project.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "server"))
sys.path.insert(0, str(Path(__file__).parents[2]))
import ray  # type: ignore[import-not-found]
from ray import serve
from ray.serve.config import HTTPOptions, gRPCOptions  # type: ignore[import-not-found]

from benchmarks.reference.protocol import Described, logits_response
from benchmarks.reference.same_engine import LARGEST_BATCH, free_port, read_spec
from rootserve.server.engines.base import LoadSpec
from rootserve.server.engines.openvino_cpu import load

SERVICER = "tritonclient.grpc.service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"


@serve.deployment(max_ongoing_requests=256)  # type: ignore[untyped-decorator]
class Service(Described):
    """One replica that computes batches of requests."""

    def __init__(self, spec: LoadSpec) -> None:
        self._engine = load(spec)

    async def ModelInfer(self, request: Any) -> Any:  # noqa: N802
        """Answer one request."""
        return await self._batch(request)

    @serve.batch(max_batch_size=LARGEST_BATCH, batch_wait_timeout_s=0)  # type: ignore[untyped-decorator]
    async def _batch(self, requests: list[Any]) -> list[Any]:
        pixels = b"".join(request.raw_input_contents[0] for request in requests)
        logits = self._engine.run(np.frombuffer(pixels, np.uint8).reshape(-1, 3, 32, 32))
        responses, first = [], 0
        for request in requests:
            rows = request.inputs[0].shape[0]
            responses.append(logits_response(request, logits[first : first + rows]))
            first += rows
        return responses


def main() -> None:
    """Serve until killed."""
    spec = read_spec(__doc__)
    # All of Ray's processes inherit these.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        (*sys.path[:2], str(Path(__file__).parent / "ray_path"))
    )
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    port = free_port()
    serve.start(
        http_options=HTTPOptions(host="127.0.0.1", port=free_port()),
        grpc_options=gRPCOptions(port=port, grpc_servicer_functions=[SERVICER]),
    )
    serve.run(Service.bind(spec))
    print(f"listening grpc=127.0.0.1:{port}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
