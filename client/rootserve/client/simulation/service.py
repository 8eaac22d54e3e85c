"""What is simulated: a family's variants, workers that compute them, and what the scheduler knows of both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from rootserve.client.errors import InputError
from rootserve.client.simulation.arrivals import Arrival
from rootserve.client.simulation.latencies import Latencies
from rootserve.client.simulation.summary import Summary, summary_of
from rootserve.client.simulation.world import HAND_OVER_S, Fault, Run, Setting, World
from rootserve.server.core.batch_size import Latency
from rootserve.server.core.family import Member
from rootserve.server.core.latency import LatencyTable
from rootserve.server.core.limits import Limits
from rootserve.server.core.policy import Policy
from rootserve.server.core.scheduler import Scheduler

FAMILY = "auto"
"""Under which name the variants are served as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service that can be simulated any number of times.

    Attributes:
        members: The variants, with their accuracies.
        latencies: How long batches really take.
        workers: How many there are of each kind.
        limits: What the scheduler keeps to.
        policy: Makes what chooses; None is the service's own.
        believed: How many times as long as they take the scheduler believes batches to take, at first.
        hand_over_s: What passes before a batch begins on an idle worker.
    """

    members: Sequence[Member]
    latencies: Latencies
    workers: Mapping[str, int]
    limits: Limits = field(default_factory=Limits)
    policy: Callable[[], Policy] | None = None
    believed: float = 1.0
    hand_over_s: float = HAND_OVER_S

    def __post_init__(self) -> None:
        if not self.members:
            raise InputError("no variants came; expected at least one")
        if not any(self.workers.values()):
            raise InputError("no workers came; expected at least one")
        for kind, number in self.workers.items():
            if kind not in self.latencies.kinds:
                known = ", ".join(self.latencies.kinds)
                raise InputError(f"workers {kind}: nothing is known of them; expected {known}")
            if number < 0:
                raise InputError(f"workers {kind}: {number} came; expected 0 or more")

    def names(self) -> list[tuple[str, str]]:
        """Names and kinds of the workers."""
        return [
            (f"{kind}-{n}", kind) for kind, number in self.workers.items() for n in range(number)
        ]

    def capacity(self, variant: str | None = None) -> float:
        """Rows per second that all workers compute of a variant, or of the fastest of each."""
        return sum(
            number * max(self._rate(kind, name) for name in self._served(kind, variant))
            for kind, number in self.workers.items()
            if number
        )

    def _served(self, kind: str, variant: str | None) -> list[str]:
        known = set(self.latencies.variants(kind))
        if variant is not None:
            return [variant]
        return [member.variant for member in self.members if member.variant in known]

    def _rate(self, kind: str, variant: str) -> float:
        rows = self.limits.max_batch_rows
        return rows / (self.latencies.mean_s(kind, variant, rows) + self.hand_over_s)

    def alternative(self, policy: Callable[[], Policy] | None, *, admission: bool) -> Self:
        """The same service with another policy."""
        return replace(self, policy=policy, limits=replace(self.limits, admission=admission))

    def scheduler(self) -> Scheduler:
        """The service's scheduler, as it is once all models were measured."""
        made = Scheduler(self.limits, self.policy() if self.policy else None, self._table())
        for (kind, variant), cells in self.latencies.cells.items():
            measured: Latency = [(cell.rows, cell.p50_s * self.believed) for cell in cells]
            made.model_measured(variant, measured, kind)
        made.family_served(FAMILY, self.members)
        return made

    def _table(self) -> LatencyTable:
        rows = [
            {
                "kind": kind,
                "model": variant,
                "rows": cell.rows,
                "p50_s": cell.p50_s * self.believed,
                "p99_s": cell.p99_s * self.believed,
            }
            for (kind, variant), cells in self.latencies.cells.items()
            for cell in cells
        ]
        table = LatencyTable(hand_over_s=self.hand_over_s)
        table.read({"latency": rows})
        return table

    def run(
        self,
        arrivals: Sequence[Arrival],
        *,
        seed: int = 0,
        faults: Sequence[Fault] = (),
        timed: bool = False,
    ) -> Run:
        """Simulate it.

        Raises:
            ValueError: A fault is of a worker that there is not.
        """
        setting = Setting(
            workers=self.names(),
            latencies=self.latencies,
            models=[member.variant for member in self.members],
            family=FAMILY,
            seed=seed,
            hand_over_s=self.hand_over_s,
            timed=timed,
        )
        return World(self.scheduler(), setting).run(arrivals, faults)

    def summary(self, run: Run) -> Summary:
        """The figures of a run of it."""
        return summary_of(run, self.members, sum(self.workers.values()))
