"""The words of a report: names of stages and percentiles, and what kind of run it was."""

from collections.abc import Mapping, Sequence
from typing import Any

from rootserve.client.load.arrivals import parse_arrivals
from rootserve.client.units import duration

# In the order in which a request passes them; the words that explain them are on the page.
STAGES = {
    "client_wait": "client wait",
    "outside_server": "network and gRPC",
    "queue": "queue",
    "batch_wait": "batch wait",
    "compute": "compute",
    "rest": "rest of the server",
}
STAGE_WORDS = {
    "client_wait": "due, and not yet sent: the client was late or had its limit under way",
    "outside_server": "service time less the server's own total: network, gRPC on both sides",
    "queue": "from its arrival in the server until its batch was closed",
    "batch_wait": "from there until a worker began to compute the batch",
    "compute": "the computation of the whole batch",
    "rest": "what is left of the server's total: parsing, hand-over, reply",
}
PERCENTILES = ("p50", "p90", "p99", "p999")
_LOOPS = {
    "closed": (
        "Closed loop: a fixed number of callers, each sending when its last answer came. It finds "
        "the highest throughput. It hides what users would wait for: while the server is stuck, "
        "nothing is sent and so nothing is late."
    ),
    "open": (
        "Open loop: requests were due at their own instants, whether or not earlier ones were "
        "answered, and the response time runs from the instant due. It shows what users would "
        "wait, overload and stalls included."
    ),
}


def percentile_name(key: str) -> str:
    """As people write it: "p99.9" for "p999"."""
    return {"p999": "p99.9", "p9999": "p99.99"}.get(key, key)


def loop_words(loop: str) -> str:
    """What the kind of loop means for the figures."""
    return _LOOPS.get(loop, "")


def run_words(report: Mapping[str, Any]) -> str:
    """What was asked of the run, in a line."""
    options = report["options"]
    rows = options.get("rows", 1)
    images = f"{rows} row{'' if str(rows) == '1' else 's'} per request"
    if report["loop"] == "closed":
        under_way = report.get("concurrency")
        return f"closed loop, {under_way} under way at once, {images}"
    rate, spread = report.get("rate"), options.get("distribution")
    if isinstance(rate, str) and parse_arrivals(rate) is None:
        return f"open loop, replay of {rate}, {images}"
    pace = f"{rate:,g} requests/s" if isinstance(rate, int | float) else f"{rate} requests/s"
    return f"open loop, {pace}{f' ({spread})' if spread else ''}, {images}"


def tick_time(seconds: float) -> str:
    """A tick's time, without the zeros that `duration` has for its three digits."""
    number, _, unit = duration(seconds).partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"


def rounded(value: float) -> str:
    """A tick's number."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def listed(names: Sequence[str]) -> str:
    """Such as "A, B and C"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
