"""The same engine behind LitServe, over HTTP: run it with the Python of an environment that has it.

``benchmarks/reference/setup DIR litserve`` makes such an environment. LitServe is not a dependency of this
project. A request is JSON, as LitServe has it: the pixels are base64.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import litserve  # type: ignore[import-not-found]
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "server"))
sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.reference.same_engine import LARGEST_BATCH, free_port, read_spec
from rootserve.server.engines.base import LoadSpec
from rootserve.server.engines.openvino_cpu import load


class Service(litserve.LitAPI):  # type: ignore[misc]
    """Batches of requests."""

    def __init__(self, spec: LoadSpec) -> None:
        super().__init__(max_batch_size=LARGEST_BATCH, batch_timeout=0)
        self._loaded = spec

    def setup(self, device: str) -> None:
        """Load the model, in the worker."""
        self._engine = load(self._loaded)

    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """Images [rows, 3, 32, 32]; LitServe would take a type of ``request`` for the body's schema."""
        pixels = base64.b64decode(request["images"])
        return np.frombuffer(pixels, np.uint8).reshape(-1, 3, 32, 32)

    def batch(self, inputs: list[Any]) -> Any:
        """The images of several requests, and whose they are."""
        return inputs

    def predict(self, inputs: list[Any]) -> list[Any]:
        """Logits by request."""
        logits = self._engine.run(np.concatenate(inputs))
        ends = np.cumsum([len(images) for images in inputs])
        return np.split(logits, ends[:-1])

    def unbatch(self, output: list[Any]) -> list[Any]:
        """Already apart."""
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        """JSON."""
        return {"logits": output.tolist()}


def main() -> None:
    """Serve until killed."""
    server = litserve.LitServer(Service(read_spec(__doc__)), accelerator="cpu", timeout=60)
    port = free_port()
    print(f"listening http=127.0.0.1:{port}", flush=True)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="error")


if __name__ == "__main__":
    main()
