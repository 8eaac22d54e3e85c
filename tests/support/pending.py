"""Requests as the wire hands them on, without a message."""

import math
import time

from rootserve.server.core.queue import Request
from rootserve.server.pending import Asked, Output, Pending, request_ids

CLASSES = tuple("abcdefghij")


def pending(
    rows: int = 1,
    *,
    model: str = "nin-root-16",
    patience_s: float = math.inf,
    outputs: tuple[Output, ...] = (Output("logits"),),
    request_id: str = "",
    content: bytes | None = None,
) -> Pending:
    """A request for raw images of 32x32 that comes now."""
    arrived_s = time.monotonic()
    request = Request(next(request_ids), model, rows, arrived_s, arrived_s + patience_s)
    raw = bytes(rows * 3072) if content is None else content
    return Pending(request, Asked(model, request_id), "UINT8", raw, outputs, CLASSES)
