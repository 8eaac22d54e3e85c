"""Prints what a scheduler's core is, and then what it decides in a simulated overload, call by call."""

from rootserve.client.load.mix import Mix
from rootserve.client.load.pacer import SteadyRate
from rootserve.client.simulation.arrivals import Asked, instants, schedule_of
from rootserve.client.simulation.replay import Recorder
from rootserve.client.simulation.world import Fault, Setting, World
from rootserve.server import core_is
from tests.support.simulated import KIND, MEMBERS, service

made = service(workers=2, spread=1.5)
asked = Asked(deadline_s=Mix((0.02, 0.1, 1.0), (1.0, 2.0, 1.0)), floor=Mix((0.0, 0.75), (3.0, 1.0)))
coming = asked.at(instants(schedule_of(SteadyRate(1500.0), 1, 1.0), 2.0), 1)
recorder = Recorder(made.scheduler().limits)
for (kind, name), cells in made.latencies.cells.items():
    recorder.model_measured(name, [(cell.rows, cell.p50_s) for cell in cells], kind=kind)
recorder.family_served("auto", MEMBERS)
names = [member.variant for member in MEMBERS]
setting = Setting(
    workers=made.names(), latencies=made.latencies, models=names, family="auto", seed=2
)
World(recorder, setting).run(coming, [Fault(f"{KIND}-0", 0.5, 0.3)])
print(core_is())
for call in recorder.calls:
    print(call)
