"""Prints what a scheduler's core is, and then what it decides in a simulated overload, call by call."""

from rootserve.client.load.mix import Mix
from rootserve.client.load.pacer import SteadyRate
from rootserve.client.simulation.arrivals import Asked, instants, schedule_of
from rootserve.server import core_is
from tests.support.simulated import recorded_run

asked = Asked(deadline_s=Mix((0.02, 0.1, 1.0), (1.0, 2.0, 1.0)), floor=Mix((0.0, 0.75), (3.0, 1.0)))
recorder, _ = recorded_run(asked.at(instants(schedule_of(SteadyRate(1500.0), 1, 1.0), 2.0), 1))
print(core_is())
for call in recorder.calls:
    print(call)
