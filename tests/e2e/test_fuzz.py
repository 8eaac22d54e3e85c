"""Tens of thousands of malformed requests: only codes of the table, and the server lives."""

import grpc
import pytest
from tritonclient.grpc import service_pb2 as oip

from tests.support.malformed import (
    MODEL,
    OPTIONS,
    OTHER_MODEL,
    bombard,
    bombard_streams,
    resident_kb,
    shared_file,
)
from tests.support.server_process import infer_request, logits, plain_images, running_server

REQUESTS = 12_000
MESSAGES = 4_000


async def test_malformed_requests_get_codes_of_the_table_and_the_server_lives() -> None:
    with running_server(*OPTIONS) as server, shared_file() as key:
        warm = await bombard(server.address, 4_000, 1, key)
        await bombard_streams(server.address, 1_000, 2)
        before_kb = resident_kb(server)
        codes = await bombard(server.address, REQUESTS, 3, key)
        streams = await bombard_streams(server.address, MESSAGES, 4)
        grown_kb = resident_kb(server) - before_kb
        assert warm.total() + codes.total() == REQUESTS + 4_000
        assert codes[grpc.StatusCode.INVALID_ARGUMENT] > REQUESTS / 4
        assert codes[grpc.StatusCode.NOT_FOUND] > 0
        assert codes[grpc.StatusCode.ALREADY_EXISTS] > 0
        assert streams[grpc.StatusCode.OK] > 0
        assert grown_kb < 20_000, "memory grows with what is refused"
        answer = server.stub.ModelInfer(infer_request(MODEL, plain_images(1, 3)), timeout=10)
        assert logits(answer)[0][0] == 3.0
        # Whatever became of it meanwhile, it can be loaded.
        load = oip.RepositoryModelLoadRequest(model_name=OTHER_MODEL)
        server.stub.RepositoryModelLoad(load, timeout=30)
        other = infer_request(OTHER_MODEL, plain_images(1, 7))
        assert logits(server.stub.ModelInfer(other, timeout=10))[0][0] == 7.0


@pytest.mark.parametrize("method", ["TraceSetting", "CudaSharedMemoryRegister", "LogSettings"])
def test_methods_that_are_not_served_say_so(method: str) -> None:
    with running_server(*OPTIONS) as server:
        call = server.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
