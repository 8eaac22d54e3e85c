"""grpcio itself, with healthCheckConfig and round_robin in its service config: it leaves who does not serve.

python benchmarks/clients/health_config.py ADDRESS ADDRESS_THAT_MAY_UNLOAD
"""

from __future__ import annotations

import json
import sys
import time

import grpc
from cat import MODEL, pixels
from tritonclient.grpc import service_pb2 as oip
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "inference.GRPCInferenceService"},
}
CALLS = 40
PATIENCE_S = 30.0


def main(*addresses: str) -> None:
    """Calls are spread; none goes to the server that unloaded its model, until it has it again."""
    options = [
        ("grpc.service_config", json.dumps(CONFIG)),
        ("grpc.use_local_subchannel_pool", 1),  # share no connection with the other channels
    ]
    each = [GRPCInferenceServiceStub(grpc.insecure_channel(address)) for address in addresses]
    with grpc.insecure_channel(f"ipv4:{','.join(addresses)}", options) as channel:
        both = GRPCInferenceServiceStub(channel)
        expect(both, each, [CALLS // 2, CALLS // 2], "both serve")
        each[1].RepositoryModelUnload(
            oip.RepositoryModelUnloadRequest(model_name=MODEL), timeout=30
        )
        expect(both, each, [CALLS, 0], "the second has unloaded")
        each[1].RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name=MODEL), timeout=60)
        expect(both, each, [CALLS // 2, CALLS // 2], "it has loaded again")


def expect(
    both: GRPCInferenceServiceStub,
    each: list[GRPCInferenceServiceStub],
    shares: list[int],
    when: str,
) -> None:
    """Ask until the answers come from each server as ``shares`` says; no call may fail meanwhile.

    Raises:
        AssertionError: if that does not happen in time.
    """
    request = oip.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="images", datatype="UINT8", shape=(1, 3, 32, 32))
    request.raw_input_contents.append(pixels().tobytes())
    end_s = time.monotonic() + PATIENCE_S
    while True:
        before = [count(stub) for stub in each]
        for _ in range(CALLS):
            both.ModelInfer(request, timeout=10, wait_for_ready=True)
        answered = [count(stub) - one for stub, one in zip(each, before, strict=True)]
        if answered == shares:
            print(f"{when}: of {CALLS} calls the servers answered {answered}")
            return
        assert time.monotonic() < end_s, f"{when}: {answered} were answered, expected {shares}"


def count(stub: GRPCInferenceServiceStub) -> int:
    """Images that the server has answered, of the models that it serves now."""
    statistics = stub.ModelStatistics(oip.ModelStatisticsRequest(), timeout=30)
    return sum(model.inference_count for model in statistics.model_stats)


if __name__ == "__main__":
    main(*sys.argv[1:])
