"""The paper's Table 8 measured anew on a live server: cost, accuracy and time of each variant.

measured = await measure(client, await survey(client), Plan())
print(markdown(measured.table))
"""

from rootserve.client.table8.measure import Measured, Plan, measure, survey
from rootserve.client.table8.rows import Row, Table, Timing
from rootserve.client.table8.text import markdown

__all__ = ["Measured", "Plan", "Row", "Table", "Timing", "markdown", "measure", "survey"]
