"""The documents of `rootserve simulate` and `rootserve plan`; docs/simulate.md explains their keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from rootserve.client.simulation.planning import Plan
from rootserve.client.simulation.series import Interval
from rootserve.client.simulation.summary import Summary

SIMULATION = "rootserve.simulation/1"
PLAN = "rootserve.plan/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """One policy on what came."""

    policy: str
    summary: Summary
    series: Sequence[Interval]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What was simulated, and what came of it; policies in the order they were asked for."""

    options: Mapping[str, Any]
    workers: Mapping[str, int]
    capacity_rows_per_s: float
    accuracies: Mapping[str, float]
    runs: Sequence[Simulated]
    command: str | None = None
    latency: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The document, ready for `json.dumps`."""
        return {"schema": SIMULATION, **msgspec.to_builtins(self, str_keys=True)}


def plan_document(made: Plan, latency: Mapping[str, Any], command: str | None) -> dict[str, Any]:
    """The document of a plan, ready for `json.dumps`."""
    told = {"schema": PLAN, "command": command, "latency": latency}
    return {**told, **msgspec.to_builtins(made, str_keys=True)}
