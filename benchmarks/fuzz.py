"""Malformed requests by the ten thousand: ``python -m benchmarks.fuzz --requests 50000``.

A third of them are messages of streams, the others calls of every method: inference with raw contents and
shared memory, metadata, model control, analyses. Some are damaged bytes, some messages with values nobody
should send; the same ones for the same seed. Whatever comes, the answer has a code that the table of
docs/architecture.md has for it, memory does not grow, and the server answers as before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

import grpc

from tests.support.malformed import (
    MODEL,
    OPTIONS,
    UnexpectedCodeError,
    bombard,
    bombard_streams,
    resident_kb,
    shared_file,
)
from tests.support.server_process import infer_request, logits, plain_images, running_server


def fuzz(requests: int, seed: int) -> dict[str, object]:
    """What came of ``requests`` malformed ones.

    Raises:
        UnexpectedCodeError: One of them got a status that it must not get.
    """
    with running_server(*OPTIONS) as server, shared_file() as key:

        async def send(share: float, seed: int) -> tuple[Counter[grpc.StatusCode], ...]:
            calls = await bombard(server.address, round(requests * share * 2 / 3), seed, key)
            streams = await bombard_streams(server.address, round(requests * share / 3), seed)
            return calls, streams

        began = time.monotonic()
        asyncio.run(send(0.2, seed))
        before_kb = resident_kb(server)
        calls, streams = asyncio.run(send(0.8, seed + 1))
        grown_kb = resident_kb(server) - before_kb
        answer = server.stub.ModelInfer(infer_request(MODEL, plain_images(1, 3)), timeout=30)
        return {
            "requests": requests,
            "seconds": round(time.monotonic() - began, 1),
            "calls": {code.name: count for code, count in calls.most_common()},
            "streams": {code.name: count for code, count in streams.most_common()},
            "grown_kb": grown_kb,
            "answers_as_before": float(logits(answer)[0][0]) == 3.0,
        }


def main() -> int:
    """Run it and print what came of it; exit status 1 if that is not what is promised."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    try:
        found = fuzz(args.requests, args.seed)
    except UnexpectedCodeError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(found, indent=2))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if found["answers_as_before"] else 1


if __name__ == "__main__":
    sys.exit(main())
