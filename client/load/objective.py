"""Whether a load run met its objective for the 99th percentile."""

from dataclasses import dataclass

from client.load.recording import LoadResult

_FAILED_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the objective was met, and in one line by how much it was or was not."""

    met: bool
    text: str


def judge(result: LoadResult, p99_s: float) -> Verdict:
    """Judge the objective "99 of 100 requests are answered within `p99_s`".

    A request that failed was not answered within any time: the objective is missed too when more
    than one in a hundred failed, however fast the others were, and when none succeeded.
    """
    goal = f"{p99_s * 1e3:g} ms"
    measured_s = result.response_time.p99
    if measured_s is None:
        return Verdict(False, f"objective missed: no request succeeded (p99 of {goal} asked)")
    share = sum(result.errors.values()) / result.requests
    if share > _FAILED_SHARE:
        text = f"{share:.1%} of the requests failed, at most 1% may (p99 of {goal} asked)"
        return Verdict(False, f"objective missed: {text}")
    over_s = measured_s - p99_s
    apart = f"{abs(over_s) * 1e3:.3g} ms ({abs(over_s) / p99_s:.1%})"
    measured = f"p99 response time {measured_s * 1e3:.3f} ms"
    if over_s > 0:
        return Verdict(False, f"objective missed: {measured}, {apart} above {goal}")
    return Verdict(True, f"objective met: {measured}, {apart} below {goal}")
