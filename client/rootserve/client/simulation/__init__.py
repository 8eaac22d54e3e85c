"""Simulation: the service's own scheduler against arrivals and workers that are computed.

run = simulate(service, demand.arrivals(seed=1))
print(summary_of(run).attainment)
"""
