"""Several runs that belong together: a sweep, the search for the highest rate, pairs."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

from rootserve.client.load.objective import Goals
from rootserve.client.load.options import LoadOptions
from rootserve.client.load.report import Kind, LoadResult, Step
from rootserve.client.load.search import Found
from rootserve.client.load.seeking import RateSearch, first_rate, first_run
from rootserve.client.load.statistics import Ratio, paired_ratio

RunOne = Callable[[LoadOptions], Awaitable[LoadResult]]


class Campaign:
    """Runs made one after the other. What was measured is in `runs` whatever happens.

    Attributes:
        kind: What the runs are for.
        runs: Their results, in order.
        steps: Of a search.
        found: Of a search: what it found so far.
        goals: Of a search.
    """

    def __init__(self, kind: Kind, run: RunOne, stop: asyncio.Event) -> None:
        """Runs are made with `run` until the work is done or `stop` is set."""
        self.kind = kind
        self.runs: list[LoadResult] = []
        self.steps: list[Step] = []
        self.found: Found | None = None
        self.goals: Goals | None = None
        self._run = run
        self._stop = stop

    @property
    def head(self) -> LoadResult:
        """The run whose figures stand for all; see docs/load.md."""
        if self.kind == "sweep":
            return max(self.runs, key=lambda each: each.throughput_rows_per_s)
        if self.kind == "find_max":
            held = [step.level for step in self.steps if step.held]
            at_rate = [
                step.level
                for step in self.steps
                if step.held and self.found and step.rate == self.found.rate
            ]
            return self.runs[(at_rate or held or [-1])[-1]]
        if self.kind == "pairs":
            return self.runs[(len(self.runs) - 1) // 2 * 2]
        return self.runs[-1]

    @property
    def interrupted(self) -> bool:
        """Whether a run was stopped before its time, or not begun."""
        return self._stop.is_set()

    async def sweep(self, levels: Iterable[LoadOptions]) -> None:
        """Make one run of each."""
        for options in levels:
            if await self._one(options) is None:
                return

    async def pairs(self, a: LoadOptions, b: LoadOptions, rounds: int) -> None:
        """Make runs of A and B in turn, `rounds` of each."""
        for _ in range(rounds):
            for name, options in (("A", a), ("B", b)):
                if await self._one(options, f"{name}: {_what(options, a, b)}") is None:
                    return

    async def find_max(
        self, options: LoadOptions, goals: Goals, precision: float, start: float | None
    ) -> None:
        """Search for the highest rate at which `goals` are met.

        Raises:
            ServerError: Nothing was answered that would tell where to begin.
        """
        self.goals = goals
        if start is None:
            first = await self._one(first_run(options))
            if first is None or first.interrupted:
                return
            start = first_rate(first)
        search = RateSearch(options, goals, precision=precision, start=start)
        self.found, self.steps = search.found, search.steps
        while (run := search.next_run()) is not None:
            result = await self._one(run)
            if result is None or result.interrupted:
                break
            search.tell(run, result, len(self.runs) - 1)
            self.found = search.found

    def limited_by_client(self) -> bool:
        """Whether a run that missed the objective did so because this client was too slow."""
        return any(
            self.runs[step.level].client_limited for step in self.steps if step.held is False
        )

    def ratios(self) -> dict[str, Ratio | None]:
        """Of pairs: B over A for throughput, p50, p99, and where there are deadlines what came in time."""
        rounds = list(zip(self.runs[::2], self.runs[1::2], strict=False))
        rounds = [(a, b) for a, b in rounds if not (a.interrupted or b.interrupted)]
        figures: dict[str, Callable[[LoadResult], Any]] = {
            "throughput_rows_per_s": lambda each: each.throughput_rows_per_s,
            "p50_s": lambda each: each.response_time_s.p50,
            "p99_s": lambda each: each.response_time_s.p99,
        }
        if any(each.attained for each in self.runs):
            figures |= {
                name: lambda each, name=name: getattr(each.attained, name, None)  # type: ignore[misc]
                for name in ("attainment", "accuracy_goodput")
            }
        return {
            name: paired_ratio([(figure(a), figure(b)) for a, b in rounds])
            for name, figure in figures.items()
        }

    async def _one(self, options: LoadOptions, label: str = "") -> LoadResult | None:
        """Make one run; None when there is to be no other."""
        if self._stop.is_set() and self.runs:
            return None
        result = await self._run(options)
        self.runs.append(replace(result, label=label) if label else result)
        return result


def _what(options: LoadOptions, a: LoadOptions, b: LoadOptions) -> str:
    """What distinguishes A and B."""
    different = [
        str(getattr(options, name))
        for name in ("model", "server")
        if getattr(a, name) != getattr(b, name)
    ]
    return " at ".join(different) or str(options.model)
