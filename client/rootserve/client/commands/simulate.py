"""`rootserve simulate` and `rootserve plan`: the service's scheduler on a latency table, without a server."""

import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootserve.client.errors import InputError
from rootserve.client.files import check_writable, write_text
from rootserve.client.load.arrivals import Ramp, Steps, parse_arrivals
from rootserve.client.load.mix import Mix
from rootserve.client.load.pacer import RampRate, RateProfile, SteadyRate, StepRate
from rootserve.client.load.specify import deadlines_of, floors_of, integers_of
from rootserve.client.load.trace import read_trace
from rootserve.client.simulation.arrivals import Arrival, Asked, instants, of_trace, schedule_of
from rootserve.client.simulation.documents import Simulated, Simulation, plan_document
from rootserve.client.simulation.figure import draw_plan, draw_run
from rootserve.client.simulation.planning import Need, plan
from rootserve.client.simulation.rivals import rivals
from rootserve.client.simulation.series import series_of
from rootserve.client.simulation.service import Service
from rootserve.client.simulation.table_file import TableFile, read_table
from rootserve.client.simulation.text import print_plan, print_simulation
from rootserve.client.tables import console
from rootserve.client.telling import telling
from rootserve.client.units import count

OURS = "rootserve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Where the result goes, beside the terminal."""

    json: Path | None = None
    figure: Path | None = None

    def check(self) -> None:
        """All that can be wrong is found out before time is spent.

        Raises:
            InputError: A file cannot be written.
        """
        for path in (self.json, self.figure):
            if path:
                check_writable(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coming:
    """What comes, as it was written; None where nothing was."""

    rate: str | None
    replay: Path | None
    duration_s: float
    cv2: float
    deadline_ms: str
    accuracy_floor: str
    rows: str
    seed: int

    def arrivals(self, variants: Sequence[str]) -> Sequence[Arrival]:
        """The requests.

        Raises:
            InputError: What was written cannot be used.
        """
        if not 0 < self.duration_s <= 86_400:
            raise InputError(f"duration {self.duration_s:g}: expected more than 0 s, up to a day")
        deadline_s = deadlines_of(self.deadline_ms)
        asked = Asked(
            deadline_s=math.inf if deadline_s is None else deadline_s,
            floor=floors_of(self.accuracy_floor),
            rows=integers_of("--rows", self.rows),
        )
        if (self.rate is None) == (self.replay is None):
            raise InputError("expected one of --rate and --replay")
        if self.replay is not None:
            return of_trace(read_trace(self.replay), asked, self.seed, set(variants).__contains__)
        profile, duration_s = self._profile(self.rate or "")
        schedule = schedule_of(profile, self.seed, self.cv2)
        return asked.at(instants(schedule, duration_s), self.seed)

    def _profile(self, text: str) -> tuple[RateProfile, float]:
        found = parse_arrivals(text)
        if isinstance(found, Ramp):
            return RampRate(found.first, found.last, 0.0, self.duration_s), self.duration_s
        if isinstance(found, Steps):
            return StepRate(found.steps, 0.0), found.length_s
        try:
            rate = float(text)
        except ValueError:
            rate = math.nan
        if not (math.isfinite(rate) and rate > 0):
            raise InputError(
                f"rate {text}: expected requests per second, a ramp FROM..TO or steps RATExSECONDS,..."
            )
        return SteadyRate(rate), self.duration_s


def workers_of(texts: Sequence[str], kinds: Sequence[str]) -> dict[str, tuple[int, int]]:
    """`N`, `N..M` or `KIND=N..M`: the fewest and the most workers of a kind; without a kind, of the only one.

    Raises:
        InputError: It is none of these, or the kind is not said and there are several.
    """
    found = {}
    for text in texts:
        kind, equals, numbers = text.rpartition("=")
        if not equals and len(kinds) > 1:
            known = ", ".join(kinds)
            raise InputError(
                f"workers {text}: expected KIND=N, as there are several kinds: {known}"
            )
        fewest, dots, most = numbers.partition("..")
        try:
            found[kind if equals else kinds[0]] = (int(fewest), int(most if dots else fewest))
        except ValueError:
            raise InputError(f"workers {text}: expected N, N..M or KIND=N..M") from None
    return found


def simulate(
    latency: Path,
    coming: Coming,
    workers: Sequence[str],
    policies: Sequence[str],
    outputs: Outputs,
) -> None:
    """Simulate, print a row for each policy, and write the files.

    Raises:
        InputError: Something that was written cannot be used, or a file cannot be read or written.
    """
    outputs.check()
    table = read_table(latency)
    service = _service(table, {kind: most for kind, (_, most) in _known(workers, table).items()})
    variants = [member.variant for member in table.members]
    known = {OURS: None, **rivals(variants)}
    if unknown := [name for name in policies if name not in known]:
        raise InputError(f"policy {unknown[0]}: expected one of {', '.join(known)}")
    arrivals = coming.arrivals(variants)
    if not arrivals:
        raise InputError("nothing would come: expected a higher rate or a longer time")
    most = service.limits.max_batch_rows
    if (widest := max(arrival.rows for arrival in arrivals)) > most:
        raise InputError(
            f"requests of {widest} rows: expected at most {most}, as many as a batch has"
        )
    runs = []
    with telling(console(stderr=True), "simulating") as tell:
        for name in policies:
            tell(f"simulating {name}, {count(len(arrivals))} requests")
            tried = service.alternative(known[name], admission=name == OURS)
            run = tried.run(arrivals, seed=coming.seed)
            runs.append(Simulated(policy=name, summary=tried.summary(run), series=series_of(run)))
    simulation = Simulation(
        options=_options(coming),
        workers=service.workers,
        capacity_rows_per_s=service.capacity(),
        accuracies={member.variant: member.accuracy for member in table.members},
        runs=runs,
        command=shlex.join(["rootserve", *sys.argv[1:]]),
        latency={"file": str(latency), "measured_on": table.where},
    )
    print_simulation(console(), simulation)
    if outputs.json:
        _write(simulation.to_json(), outputs.json)
    if outputs.figure:
        draw_run(runs[0], outputs.figure)


def _known(workers: Sequence[str], table: TableFile) -> dict[str, tuple[int, int]]:
    kinds = table.latencies.kinds
    return workers_of(workers, kinds) or {kinds[0]: (1, 1)}


def _service(table: TableFile, workers: Mapping[str, int]) -> Service:
    return Service(members=table.members, latencies=table.latencies, workers=workers)


def _options(coming: Coming) -> dict[str, Any]:
    options = {name: getattr(coming, name) for name in Coming.__slots__}
    return {
        name: str(value) if isinstance(value, Mix | Path) else value
        for name, value in options.items()
    }


def make_plan(
    latency: Path, need: Need, workers: Sequence[str], seed: int, outputs: Outputs
) -> bool:
    """Plan, print it, and write the files. Gives whether some number of workers holds it.

    Raises:
        InputError: As `simulate`.
    """
    outputs.check()
    table = read_table(latency)
    service = _service(table, dict.fromkeys(table.latencies.kinds, 1))
    numbers = workers_of(workers, table.latencies.kinds)
    with telling(console(stderr=True), "simulating") as tell:
        made = plan(service, need, numbers, seed, tell)
    print_plan(console(), made)
    if outputs.json:
        told = {"file": str(latency), "measured_on": table.where}
        _write(plan_document(made, told, shlex.join(["rootserve", *sys.argv[1:]])), outputs.json)
    if outputs.figure and made.options:
        draw_plan(made, outputs.figure)
    return any(option.holds for option in made.options)


def _write(document: Mapping[str, Any], path: Path) -> None:
    write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", path)
