"""Load generator: measures models under a closed or an open loop of requests.

result = await run_load(LoadOptions(model="nin-orig", concurrency=16, duration_s=10), images)
print(result.throughput_rows_per_s, result.response_time.p99)
"""

from rootserve.client.load.arrivals import Distribution, Ramp, Steps
from rootserve.client.load.mix import Mix
from rootserve.client.load.options import LoadOptions
from rootserve.client.load.report import LatencySummary, LoadResult, Report
from rootserve.client.load.runner import run_load
from rootserve.client.load.snapshot import Snapshot
from rootserve.client.load.trace import Trace, read_trace

__all__ = [
    "Distribution",
    "LatencySummary",
    "LoadOptions",
    "LoadResult",
    "Mix",
    "Ramp",
    "Report",
    "Snapshot",
    "Steps",
    "Trace",
    "read_trace",
    "run_load",
]
