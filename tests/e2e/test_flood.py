"""More comes than the service may hold: it holds no more, refuses the rest, and goes on."""

import asyncio
from collections import Counter

import grpc
import pytest
from tritonclient.grpc import service_pb2 as oip

from tests.support.server_process import (
    ServerProcess,
    plain_images,
    running_server,
    wait_until,
)

OK = grpc.StatusCode.OK
MODEL = "nin-root-16"
CALLS = 600
MESSAGE = 2**21
LIMITS = ("--max-message-mb", "16", "--max-queue-mb", "16")
MOST_KB = 512 * 1024
"""Of 1,200 MiB that are sent. The limits allow 64 beside the 75 of an idle server; the rest is what comes
between two looks, and what each call may send unasked."""


async def flood(server: ServerProcess, method: str) -> Counter[grpc.StatusCode]:
    """Send all at once over four connections; no call is answered well."""
    message = oip.ModelInferRequest(model_name=MODEL)
    message.raw_input_contents.append(bytes(MESSAGE))
    content = message.SerializeToString()
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(server.address, options) for _ in range(4)]
    codes: Counter[grpc.StatusCode] = Counter()

    async def ask(number: int) -> None:
        channel = channels[number % 4]
        call = channel.stream_stream(f"/inference.GRPCInferenceService/{method}")(
            iter([content]), timeout=60
        )
        try:
            async for _ in call:
                pass
        except grpc.aio.AioRpcError:
            pass
        codes[await call.code()] += 1

    await asyncio.gather(*(ask(number) for number in range(CALLS)))
    for channel in channels:
        await channel.close()
    return codes


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
async def test_a_flood_of_large_messages_takes_bounded_memory(method: str) -> None:
    with running_server("--engine", "fake", "--models", MODEL, *LIMITS) as server:
        codes = await flood(server, method)
        assert sum(codes.values()) == CALLS
        # A client whose call ends while it still sends may see INTERNAL instead of the status.
        allowed = {"OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL", "CANCELLED"}
        assert {code.name for code in codes} <= allowed
        assert server.peak_kb() < MOST_KB
        # Memory is looked at again soon after the flood.
        wait_until(lambda: server.stub.ServerReady.future(oip.ServerReadyRequest()).code() is OK)
        assert server.infer(MODEL, plain_images(1, 5))[0][0] == 5


def test_one_message_that_is_much_too_large_is_ended_while_it_comes() -> None:
    with running_server("--engine", "fake", "--models", MODEL, *LIMITS) as server:
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(server.address, options) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            with pytest.raises(grpc.RpcError):
                call(bytes(2**29), timeout=60)
        assert server.peak_kb() < MOST_KB
