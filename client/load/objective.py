"""Whether a load run met its objective for the 99th percentile."""

from dataclasses import dataclass

from client.load.result import LoadResult


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the objective was met, and in one line by how much it was or was not."""

    met: bool
    text: str


def judge(result: LoadResult, p99_s: float) -> Verdict:
    """Judge the objective "99 of 100 requests are answered within `p99_s`".

    Of all requests that were due: one that failed or was never answered was not answered within any
    time. So the p99 is taken over all of them, with those last, as if they had taken for ever.
    """
    goal = f"{p99_s * 1e3:g} ms"
    if not result.succeeded:
        return Verdict(False, f"objective missed: no request succeeded (p99 of {goal} asked)")
    measured_s = result.p99_of_all_s
    if measured_s is None:
        share = 1 - result.succeeded / result.requests
        text = f"{share:.1%} of the requests got no answer, at most 1% may (p99 of {goal} asked)"
        return Verdict(False, f"objective missed: {text}")
    over_s = measured_s - p99_s
    apart = f"{abs(over_s) * 1e3:.3g} ms ({abs(over_s) / p99_s:.1%})"
    measured = f"99% of the requests were answered within {measured_s * 1e3:.3f} ms"
    if over_s > 0:
        return Verdict(False, f"objective missed: {measured}, {apart} above {goal}")
    return Verdict(True, f"objective met: {measured}, {apart} below {goal}")
