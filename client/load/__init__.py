"""Load generator: measures a model under a closed or an open loop of requests.

result = await run_load(LoadOptions(model="nin-orig", concurrency=16, duration_s=10), images)
print(result.throughput_rows_per_s, result.response_time.p99)
"""

from client.load.histogram import LatencySummary
from client.load.options import Distribution, LoadOptions
from client.load.recording import LoadResult, Snapshot
from client.load.runner import run_load

__all__ = [
    "Distribution",
    "LatencySummary",
    "LoadOptions",
    "LoadResult",
    "Snapshot",
    "run_load",
]
