"""The same engine behind NVIDIA's Triton, by PyTriton: run it with the Python of an environment that has it.

``benchmarks/reference/setup DIR pytriton`` makes such an environment. PyTriton is not a dependency of this
project.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "server"))
sys.path.insert(0, str(Path(__file__).parents[2]))
from pytriton.decorators import batch  # type: ignore[import-not-found]
from pytriton.model_config import (  # type: ignore[import-not-found]
    DynamicBatcher,
    ModelConfig,
    Tensor,
)
from pytriton.triton import (  # type: ignore[import-not-found]
    Triton,
    TritonConfig,
    TritonSecurityConfig,
)

from benchmarks.reference.same_engine import LARGEST_BATCH, free_port, read_spec
from rootserve.server.engines.openvino_cpu import load


def main() -> None:
    """Serve until killed."""
    spec = read_spec(__doc__)
    engine = load(spec)

    @batch  # type: ignore[untyped-decorator]
    def infer(images: np.ndarray) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
        return {"logits": engine.run(images)}

    ports = {name: free_port() for name in ("grpc_port", "http_port", "metrics_port")}
    config = TritonConfig(
        grpc_address="127.0.0.1", http_address="127.0.0.1", log_verbose=0, **ports
    )
    open_to_all = TritonSecurityConfig(restricted_endpoints=[])  # clients ask it for its model
    with Triton(config=config, security_config=open_to_all) as triton:
        triton.bind(
            model_name=spec.model,
            infer_func=infer,
            inputs=[Tensor(name="images", dtype=np.uint8, shape=(3, 32, 32))],
            outputs=[Tensor(name="logits", dtype=np.float32, shape=(10,))],
            config=ModelConfig(
                max_batch_size=LARGEST_BATCH,
                batcher=DynamicBatcher(max_queue_delay_microseconds=0),
            ),
            strict=True,
        )
        triton.run()
        print(f"listening grpc=127.0.0.1:{ports['grpc_port']}", flush=True)
        triton.serve()


if __name__ == "__main__":
    main()
