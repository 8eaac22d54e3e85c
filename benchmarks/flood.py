"""More than the service may hold: so many calls at once with large messages, and the memory it takes.

python -m benchmarks.flood --calls 4096 --mb 1.5
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as oip

from benchmarks.server_process import SERVER_COMMAND, Server, serving
from rootmodels.processor import cpu_name

MODEL = "nin-root-16"
METHODS = ("ModelInfer", "ModelStreamInfer")


def _memory_mb(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(f"{name}:"))


def _message(size: int) -> bytes:
    """One that is refused once it has come: it says nothing of what its content is."""
    message = oip.ModelInferRequest(model_name=MODEL)
    message.raw_input_contents.append(bytes(size))
    content: bytes = message.SerializeToString()
    return content


async def flood(address: str, method: str, calls: int, size: int) -> Counter[str]:
    """Send ``calls`` messages of ``size`` bytes at once, over four connections; how they ended."""
    content = _message(size)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    channels = [grpc.aio.insecure_channel(address, options) for _ in range(4)]

    async def ask(number: int) -> str:
        path = f"/inference.GRPCInferenceService/{method}"
        call = channels[number % len(channels)].stream_stream(path)(iter([content]), timeout=300)
        try:
            async for _ in call:
                pass
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return "OK"

    codes = Counter(await asyncio.gather(*(ask(number) for number in range(calls))))
    for channel in channels:
        await channel.close()
    return codes


async def _run(server: Server, method: str, calls: int, size: int) -> None:
    began_s = time.monotonic()
    codes = await flood(server.address, method, calls, size)
    seconds = time.monotonic() - began_s
    image = oip.ModelInferRequest(model_name=MODEL)
    image.inputs.add(name="images", datatype="UINT8", shape=(1, 3, 32, 32))
    image.raw_input_contents.append(np.zeros(3072, np.uint8).tobytes())
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        await asyncio.sleep(1)
        await call(image.SerializeToString(), timeout=30)
    print(
        f"| {method} | {', '.join(f'{code}: {n}' for code, n in codes.most_common())} | "
        f"{seconds:.0f} s | {_memory_mb(server.pid, 'VmHWM'):,} MiB | "
        f"{_memory_mb(server.pid, 'VmRSS'):,} MiB | yes |",
        flush=True,
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=4096)
    parser.add_argument("--mb", type=float, default=1.5, help="MiB of each message")
    parser.add_argument("server", nargs="*", help="more options of the server, behind --")
    options = parser.parse_args()
    command = [*SERVER_COMMAND]
    command += ["--models", MODEL, "--engine", "fake", *options.server]
    print(cpu_name())
    print(
        f"{options.calls} calls at once of {options.mb:g} MiB: {options.calls * options.mb:,.0f} MiB"
    )
    print("| method | answers | took | peak memory | memory 1 s later | answers afterwards |")
    print("|---|---|---|---|---|---|")
    for method in METHODS:
        with serving(command) as server:
            asyncio.run(_run(server, method, options.calls, round(options.mb * 2**20)))


if __name__ == "__main__":
    main()
