"""What casts doubt on a run's figures, in words; first of all that the client was the bottleneck."""

from rootserve.client.load.report import LoadResult
from rootserve.client.units import count, duration, percent

# Above this share of late requests, or of one core, the client shows in what it measures.
_LATE_SHARE = 0.01
_BUSY_CORES = 0.9
# So long without an answer at the end of the window, the server counts as gone.
_SILENCE_S = 1.0


def client_limited(result: LoadResult) -> bool:
    """Whether the client, or the processor left to it, was the bottleneck."""
    return _late_by_client(result) > _LATE_SHARE * result.requests or _is_busy(result)


def _late_by_client(result: LoadResult) -> int:
    """Late departures that were not waiting for the server's answers."""
    return max(0, result.late_departures - result.held_back)


def _is_busy(result: LoadResult) -> bool:
    processes: int = result.options["processes"]
    return result.client_cpu_cores > _BUSY_CORES * processes


def doubts(result: LoadResult) -> list[str]:
    """All of them, as sentences without a full stop."""
    return [
        *_emptiness(result),
        *_interruptions(result),
        *_lateness(result),
        *_instability(result),
    ]


def _emptiness(result: LoadResult) -> list[str]:
    if result.requests or result.interrupted:
        return []
    return [f"no request was due in the {result.window_s:g} s that were measured"]


def _interruptions(result: LoadResult) -> list[str]:
    found = []
    if result.interrupted:
        asked = result.options["duration_s"]
        found.append(f"interrupted: {result.window_s:.1f} s of {asked:g} s were measured")
    if result.lost_processes:
        found.append(
            f"{result.lost_processes} of {result.options['processes']} client processes ended "
            "before their time: what they sent is missing"
        )
    if since_s := silent_since(result):
        found.append(
            f"the server gave no answer after {since_s:.1f} s of the run "
            f"({count(result.errors['UNAVAILABLE'])} requests: UNAVAILABLE)"
        )
    return found


def _lateness(result: LoadResult) -> list[str]:
    found = []
    most = f"at most {duration(result.max_lateness_s)}"
    if result.held_back > _LATE_SHARE * result.requests:
        found.append(
            f"{count(result.held_back)} requests waited to be sent ({most}), as "
            f"{count(result.options['max_in_flight'])} were under way: the server did not keep "
            "up with the rate"
        )
    late = _late_by_client(result)
    if late > _LATE_SHARE * result.requests:
        found.append(
            f"this client, or its machine, was the bottleneck: {count(late)} requests left more "
            f"than 1 ms late ({most}); try --processes, or a machine of its own"
        )
    if _is_busy(result):
        processes = result.options["processes"]
        found.append(
            f"this client was the bottleneck: it used {result.client_cpu_cores:.1f} processor "
            f"cores in {processes} process{'es' if processes > 1 else ''}; try more --processes"
        )
    return found


def _instability(result: LoadResult) -> list[str]:
    if result.stable is not False or result.interrupted:
        return []
    rates = [trial.throughput_requests_per_s for trial in result.trials]
    return [
        f"not stable within {percent(result.options['stable_within'])} after {len(rates)} windows "
        f"({min(rates):,.1f} to {max(rates):,.1f} requests/s); the figures are those of all"
    ]


def silent_since(result: LoadResult) -> float | None:
    """When the last answer came, in seconds since the start, if the server was gone after it."""
    if "UNAVAILABLE" not in result.errors or not result.trials:
        return None
    last_s = result.last_answer_s or 0.0
    return last_s if result.trials[-1].end_s - last_s > _SILENCE_S else None
