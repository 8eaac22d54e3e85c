"""A small family whose latencies are known, for what is simulated."""

from collections.abc import Sequence

from rootserve.client.simulation.arrivals import Arrival
from rootserve.client.simulation.latencies import Cell, Latencies
from rootserve.client.simulation.replay import Recorder
from rootserve.client.simulation.service import Service
from rootserve.client.simulation.world import Fault, Run, Setting, World
from rootserve.server.core.family import Member

KIND = "cpu"
MEMBERS = (Member("slow", 0.9), Member("middle", 0.8), Member("fast", 0.7))
_ROW_S = {"slow": 0.004, "middle": 0.002, "fast": 0.001}


def cells(row_s: float, spread: float = 1.0) -> list[Cell]:
    """A fixed millisecond, and so much for each row; p99 is `spread` times as long."""
    times = [(rows, 0.001 + row_s * rows) for rows in (1, 2, 4, 8, 16, 32)]
    return [Cell(rows, seconds, seconds * spread) for rows, seconds in times]


def latencies(spread: float = 1.0) -> Latencies:
    return Latencies({(KIND, name): cells(row_s, spread) for name, row_s in _ROW_S.items()})


def service(workers: int = 1, spread: float = 1.0) -> Service:
    return Service(members=MEMBERS, latencies=latencies(spread), workers={KIND: workers})


def recorded_run(coming: Sequence[Arrival]) -> tuple[Recorder, Run]:
    """What a scheduler was told and answered while two workers computed `coming`, one of which dies."""
    made = service(workers=2, spread=1.5)
    recorder = Recorder(made.scheduler().limits)
    for (kind, name), each in made.latencies.cells.items():
        recorder.model_measured(name, [(cell.rows, cell.p50_s) for cell in each], kind=kind)
    recorder.family_served("auto", iter(MEMBERS))
    setting = Setting(
        workers=made.names(),
        latencies=made.latencies,
        models=[member.variant for member in MEMBERS],
        family="auto",
        seed=2,
    )
    return recorder, World(recorder, setting).run(coming, [Fault(f"{KIND}-0", 0.5, 0.3)])


def document() -> dict[str, object]:
    """As `rootserve latency --json` writes it."""
    rows = [
        {"kind": kind, "model": name, "form": "pixels", **cell._asdict()}
        for (kind, name), each in latencies(1.2).cells.items()
        for cell in each
    ]
    members = [{"variant": each.variant, "accuracy": each.accuracy} for each in MEMBERS]
    return {"schema": "rootserve.latency/1", "members": members, "latency": rows}
