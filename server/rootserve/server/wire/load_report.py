"""How loaded this server is, as each answer tells a balancer: ORCA's report in the trailers of ModelInfer.

The message is xds.data.orca.v3.OrcaLoadReport. It is written here by hand: the package with its stubs,
xds-protos, has an import package `envoy`, as the one that brings the proxy itself. gRPC's clients use the
report and keep it from programs.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping

from rootserve.server.wire.protobuf import FIXED64, delimited, key

TRAILER = "endpoint-load-metrics-bin"
BACKLOG = "backlog_s"
"""All models together; `backlog_s.MODEL` is that of one for which something waits."""

# Fields of OrcaLoadReport.
_RPS_FRACTIONAL, _NAMED_METRICS = 6, 8

_RATE_OVER_S = 1.0
_KEPT_S = 0.005


class LoadReports:
    """Writes reports; ``backlog_s`` tells of a model, or None if that is not known, ``now`` the time."""

    def __init__(
        self,
        models: Callable[[], Iterable[str]],
        backlog_s: Callable[[str], float | None],
        now: Callable[[], float],
    ) -> None:
        self._models = models
        self._backlog_s = backlog_s
        self._now = now
        self._per_s = 0.0
        self._counted_s = now()
        self._made_s = -math.inf
        self._made = b""

    def trailers(self) -> tuple[tuple[str, bytes], ...]:
        """Those of an answer that is sent now."""
        now = self._now()
        self._per_s *= math.exp((self._counted_s - now) / _RATE_OVER_S)
        self._per_s += 1 / _RATE_OVER_S
        self._counted_s = now
        if now - self._made_s > _KEPT_S:
            self._made, self._made_s = encode(self._per_s, self._backlogs()), now
        return ((TRAILER, self._made),)

    def _backlogs(self) -> dict[str, float]:
        found = {model: self._backlog_s(model) or 0.0 for model in self._models()}
        waiting = {f"{BACKLOG}.{model}": seconds for model, seconds in found.items() if seconds}
        return {BACKLOG: sum(found.values()), **waiting}


def encode(per_s: float, named: Mapping[str, float]) -> bytes:
    """An OrcaLoadReport with requests per second and named metrics."""
    parts = [_double(_RPS_FRACTIONAL, per_s)]
    for name, value in named.items():
        entry = delimited(1, name.encode()) + _double(2, value)
        parts.append(delimited(_NAMED_METRICS, entry))
    return b"".join(parts)


def _double(field: int, value: float) -> bytes:
    return key(field, FIXED64) + struct.pack("<d", value)
