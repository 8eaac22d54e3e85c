"""Which variant to take: accuracy against the highest rate that holds an objective, on a live server.

measured = await measure(client, connection, Plan(p99_s=0.05))
print(measured.choice.recommendation)
"""

from rootserve.client.choice.document import Choice, Variant, read_choice, write_choice
from rootserve.client.choice.measure import Measured, measure
from rootserve.client.choice.plan import Plan

__all__ = ["Choice", "Measured", "Plan", "Variant", "measure", "read_choice", "write_choice"]
