"""What `rootserve load` is to measure, and which of its options go together: the one place that checks them.

What a single run may be, whoever asks for it, `LoadOptions` checks.
"""

import math
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rootserve.client.commands.load_arguments import Asked
from rootserve.client.commands.only_model import only_model
from rootserve.client.credentials import Connection
from rootserve.client.defaults import ROUNDS
from rootserve.client.errors import InputError
from rootserve.client.load import Distribution, LoadOptions, specify
from rootserve.client.load.objective import Goals
from rootserve.client.load.report import Kind

_MOST_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is to be measured.

    Attributes:
        levels: One run, or those of a sweep; for a search, its first run.
        versus: The other side of pairs.
        rounds: Runs of each side.
        goals: Objectives, if there are any.
        find_max: Whether to search for the highest rate that holds them.
        command: The command line, for the report.
    """

    levels: tuple[LoadOptions, ...]
    versus: LoadOptions | None = None
    rounds: int = ROUNDS
    goals: Goals | None = None
    find_max: bool = False
    command: str | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models asked, those of the other side last."""
        sides = (*self.levels[:1], *([self.versus] if self.versus else []))
        return tuple(dict.fromkeys(name for side in sides for name in side.models))

    @property
    def kind(self) -> Kind:
        """What the runs are for."""
        if self.find_max:
            return "find_max"
        if self.versus is not None:
            return "pairs"
        return "sweep" if len(self.levels) > 1 else "run"


def measurement_of(asked: Asked, connection: Connection) -> Measurement:
    """What the options mean together.

    Raises:
        InputError: One cannot be used, two contradict each other, or one is missing; the message names them.
    """
    for fault in _faults(asked):
        raise InputError(fault)
    if asked.find_max and asked.rate is None:
        # Where the search begins is found out by callers.
        loads: list[specify.Load] = [(max(16, asked.processes), None)]
    else:
        loads = specify.loads_of(asked.concurrency, asked.rate, asked.replay)
    if asked.find_max and not all(isinstance(arrivals, float | None) for _, arrivals in loads):
        raise InputError(
            f"--find-max with --rate {asked.rate}: expected a steady rate to begin with"
        )
    if len(loads) > 1 and (asked.find_max or asked.versus):
        raise InputError(
            "a sweep together with --find-max or --versus: expected one --concurrency or --rate"
        )
    levels = tuple(_levels(asked, connection, loads))
    if asked.slo_attainment is not None and not levels[0].has_deadlines:
        raise InputError(
            "--slo-attainment without --deadline-ms: expected both, or a --replay that tells deadlines"
        )
    return Measurement(
        levels,
        versus=None if asked.versus is None else specify.other_side(levels[0], asked.versus),
        rounds=ROUNDS if asked.rounds is None else asked.rounds,
        goals=_goals(asked),
        find_max=asked.find_max,
        command=shlex.join(["rootserve", *sys.argv[1:]]),
    )


def _goals(asked: Asked) -> Goals | None:
    if asked.slo_p99_ms is None and asked.slo_attainment is None:
        return None
    p99_s = None if asked.slo_p99_ms is None else asked.slo_p99_ms / 1000
    return Goals(p99_s, asked.slo_attainment)


def _levels(
    asked: Asked, connection: Connection, loads: Sequence[specify.Load]
) -> Iterator[LoadOptions]:
    model = specify.models_of(asked.model or [only_model(connection)])
    # What holds where nothing was written, `LoadOptions` knows.
    readers: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        "distribution": (asked.distribution, Distribution),
        "deadline_s": (asked.deadline_ms, specify.deadlines_of),
        "accuracy_floor": (asked.accuracy_floor, specify.floors_of),
        "variants": (asked.variants, specify.variants_of),
        "priority": (asked.priority, lambda text: specify.integers_of("--priority", text)),
        "max_in_flight": (asked.max_in_flight, int),
        "stable_within": (asked.stable, lambda percent: percent / 100),
        "max_trials": (asked.max_trials, int),
    }
    written = {name: read(value) for name, (value, read) in readers.items() if value is not None}
    for callers, arrivals in loads:
        duration_s, warmup_s = specify.times_of(arrivals, asked.duration, asked.warmup)
        yield LoadOptions(
            model=model,
            server=connection.server,
            credentials=connection.credentials,
            concurrency=callers,
            rate=arrivals,
            duration_s=duration_s,
            warmup_s=warmup_s,
            rows=specify.integers_of("--rows", asked.rows),
            seed=asked.seed,
            timeout_s=asked.timeout_s,
            streaming=asked.streaming,
            processes=asked.processes,
            **written,
        )


def _faults(asked: Asked) -> Iterator[str]:
    """What is wrong with the options, as far as they themselves tell it."""
    yield from _faults_of_the_load(asked)
    if asked.slo_p99_ms is not None and not 0 < asked.slo_p99_ms < math.inf:
        yield f"--slo-p99-ms {asked.slo_p99_ms:g}: expected more than 0"
    if asked.slo_attainment is not None and not 0 < asked.slo_attainment <= 1:
        yield f"--slo-attainment {asked.slo_attainment:g}: expected a share, more than 0 and up to 1"
    objectives = [asked.slo_p99_ms, asked.slo_attainment]
    has_objective = any(each is not None for each in objectives) or None
    if asked.stable is not None and not 0 < asked.stable <= 100:
        yield f"--stable {asked.stable:g}: expected more than 0 and up to 100 percent"
    for option, value, other, needed in (
        ("--max-trials", asked.max_trials, "--stable", asked.stable),
        ("--find-max", asked.find_max or None, "--slo-p99-ms or --slo-attainment", has_objective),
        ("--rounds", asked.rounds, "--versus", asked.versus),
    ):
        if value is not None and needed is None:
            yield f"{option} without {other}: expected both"
    if asked.versus is not None and (asked.find_max or has_objective):
        yield "--versus with --slo-p99-ms, --slo-attainment or --find-max: expected one or the other"
    if asked.rounds is not None and not 1 <= asked.rounds <= _MOST_ROUNDS:
        yield f"--rounds {asked.rounds}: expected 1 to {_MOST_ROUNDS}"


def _faults_of_the_load(asked: Asked) -> Iterator[str]:
    loads = {"--concurrency": asked.concurrency, "--rate": asked.rate, "--replay": asked.replay}
    given = [name for name, value in loads.items() if value is not None]
    if asked.find_max and given not in ([], ["--rate"]):
        yield f"--find-max with {given[0]}: expected --rate to begin with, or nothing"
    if not given and not asked.find_max:
        yield (
            "neither --concurrency nor --rate: expected --concurrency C for a closed loop, "
            "--rate R for an open one, or --replay FILE"
        )
    if len(given) > 1:
        yield f"both {given[0]} and {given[1]}: expected one of them"
    for option, value in (
        ("--distribution", asked.distribution),
        ("--max-in-flight", asked.max_in_flight),
    ):
        if value is not None and asked.concurrency is not None:
            yield f"{option} without --rate: it shapes the open loop only"
    if asked.distribution is not None and asked.replay is not None:
        yield "--distribution with --replay: the file tells every departure"
    if asked.distribution not in {None, *Distribution}:
        yield f"--distribution {asked.distribution}: expected poisson or constant"
