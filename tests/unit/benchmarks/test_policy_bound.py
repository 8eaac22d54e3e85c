"""The bound on what a policy can reach: exact where it can be reckoned by hand, above what is simulated."""

import pytest

from benchmarks.policy_bound import bound
from benchmarks.policy_workloads import workloads
from rootserve.client.simulation.arrivals import Arrival
from rootserve.client.simulation.rivals import rivals
from rootserve.client.simulation.world import Fault
from tests.support.simulated import KIND, MEMBERS, service


def burst(count: int, **asked: float) -> list[Arrival]:
    return [Arrival(0.0, deadline_s=0.2, **asked) for _ in range(count)]  # type: ignore[arg-type]


def test_with_time_for_all_it_is_the_highest_accuracy() -> None:
    found = bound(service(), burst(10))
    assert (found.accuracy_goodput, found.attainment) == pytest.approx((0.9, 1.0))


def test_what_does_not_fit_is_met_in_part() -> None:
    # 0.22 s of time, in intervals of 20 ms; a row of the fastest takes 33/32 ms.
    met = 0.22 / (0.033 / 32)
    found = bound(service(), burst(1000))
    assert found.attainment == pytest.approx(met / 1000)
    assert found.accuracy_goodput == pytest.approx(0.7 * met / 1000, rel=0.01)
    assert bound(service(workers=2), burst(1000)).attainment == pytest.approx(2 * met / 1000)


def test_a_floor_and_a_lost_worker_cost_time() -> None:
    free, floor = bound(service(), burst(500)), bound(service(), burst(500, floor=0.85))
    assert floor.attainment < free.attainment
    lost = bound(service(), burst(500), [Fault(f"{KIND}-0", 0.0, 0.1)])
    assert lost.attainment == pytest.approx(0.12 / 0.22 * free.attainment)


@pytest.mark.parametrize("load", [0.6, 1.0, 1.5])
def test_no_policy_passes_it(load: float) -> None:
    made = service()
    workload = next(each for each in workloads() if each.name == f"Poisson, load {load:g}")
    arrivals = workload.arrivals(made.capacity(), 2.0, 1)
    most = bound(made, arrivals)
    policies = rivals([member.variant for member in MEMBERS])
    for policy in (None, policies["slackfit"], policies["max-batch"]):
        tried = made.alternative(policy, admission=policy is None)
        found = tried.summary(tried.run(arrivals))
        assert found.accuracy_goodput <= most.accuracy_goodput + 1e-6
        assert found.attainment <= most.attainment + 1e-6
