"""Whether a load run met its objective for the 99th percentile."""

from rootserve.client.load.report import LoadResult, Objective

LEAST_REQUESTS = 100
"""Of fewer, the 99th percentile is the slowest one: what came of a single request would decide."""


def judge(result: LoadResult, p99_s: float) -> Objective:
    """Judge the objective "99 of 100 requests are answered within `p99_s`".

    Of all requests that were due: one that failed or was never answered was not answered within any
    time. So the p99 is taken over all of them, with those last, as if they had taken for ever.
    """
    goal = f"{p99_s * 1e3:g} ms"
    if not result.succeeded:
        return Objective(
            p99_s, False, f"objective missed: no request succeeded (p99 of {goal} asked)"
        )
    measured_s = result.p99_of_all_s
    if result.requests < LEAST_REQUESTS and not _missed_by_two(result, p99_s):
        requests = f"{result.requests} request{'' if result.requests == 1 else 's'}"
        return Objective(
            p99_s,
            False,
            f"objective not judged: {requests} in {result.window_s:.3g} s are too few to tell a 99th "
            f"percentile; expected {LEAST_REQUESTS} at least (p99 of {goal} asked): measure longer",
            decided=False,
        )
    if measured_s is None:
        share = 1 - result.succeeded / result.requests
        text = f"{share:.1%} of the requests got no answer, at most 1% may (p99 of {goal} asked)"
        return Objective(p99_s, False, f"objective missed: {text}")
    over_s = measured_s - p99_s
    apart = f"{abs(over_s) * 1e3:.3g} ms ({abs(over_s) / p99_s:.1%})"
    measured = f"99% of the requests were answered within {measured_s * 1e3:.3f} ms"
    if over_s > 0:
        return Objective(p99_s, False, f"objective missed: {measured}, {apart} above {goal}")
    return Objective(p99_s, True, f"objective met: {measured}, {apart} below {goal}")


def _missed_by_two(result: LoadResult, p99_s: float) -> bool:
    """Whether two of the requests at least were too slow or failed.

    Then 98 of the first hundred are the most that can have been answered in time, whatever the rest do.
    """
    if result.requests < 2:
        return False
    return result.all_but_one_s is None or result.all_but_one_s > p99_s
