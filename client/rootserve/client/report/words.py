"""The words of a report that are no names of figures: what kind of run it was, and numbers at axes."""

from collections.abc import Sequence

from rootserve.client.load.arrivals import parse_arrivals
from rootserve.client.load.report import LoadResult
from rootserve.client.units import duration

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


def loop_words(loop: str) -> str:
    """What the kind of loop means for the figures."""
    return _LOOPS.get(loop, "")


def run_words(run: LoadResult) -> str:
    """What was asked of the run, in a line."""
    rows = run.options.get("rows", 1)
    requests = f"{rows} row{'' if str(rows) == '1' else 's'} per request"
    if run.options.get("streaming"):
        requests += ", over streams"
    if run.loop == "closed":
        return f"closed loop, {run.concurrency} under way at once, {requests}"
    if isinstance(run.rate, str) and parse_arrivals(run.rate) is None:
        return f"open loop, replay of {run.rate}, {requests}"
    pace = run.rate if isinstance(run.rate, str) else f"{run.rate or 0:g}"
    spread = run.options.get("distribution")
    return f"open loop, {pace} requests/s{f' ({spread})' if spread else ''}, {requests}"


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
