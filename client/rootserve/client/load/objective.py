"""Whether a load run met its objectives: for the 99th percentile, for the attainment, or for both."""

import math
from dataclasses import dataclass
from functools import partial

from rootserve.client.load.report import LoadResult, Objective

LEAST_REQUESTS = 100
"""Of fewer, the 99th percentile is the slowest one: what came of a single request would decide."""


@dataclass(frozen=True, slots=True)
class Goals:
    """What is asked of a run; one of the two at least.

    Attributes:
        p99_s: 99 of 100 requests are answered within so many seconds.
        attainment: This share of the requests, up to 1, is answered, and within its deadline.
    """

    p99_s: float | None = None
    attainment: float | None = None

    @property
    def text(self) -> str:
        """Both in a few words: "p99 within 50 ms and attainment of 99%"."""
        words = [] if self.p99_s is None else [f"p99 within {self.p99_s * 1e3:g} ms"]
        if self.attainment is not None:
            words.append(f"attainment of {share_text(self.attainment)}")
        return " and ".join(words)

    @property
    def least_requests(self) -> int:
        """Of fewer, what came of a single request would decide."""
        wanted = [1.0 if self.p99_s is None else 0.99, self.attainment or 0.0]
        return max(LEAST_REQUESTS, *(_least_requests(share) for share in wanted))


def share_text(share: float) -> str:
    """A share that is asked for, in percent, as it was written: "99%", "99.95%"."""
    return f"{round(100 * share, 9):g}%"


def judge(result: LoadResult, goals: Goals) -> Objective:
    """Judge the objectives, all of them to be met.

    Of all requests that were due: one that failed or was never answered was not answered within any
    time, and not within its deadline. So the p99 is taken over all of them, with those last, as if they
    had taken for ever.
    """
    verdicts = []
    if goals.p99_s is not None:
        verdicts.append(_judge_p99(result, goals.p99_s))
    if goals.attainment is not None:
        verdicts.append(_judge_attainment(result, goals.attainment))
    missed = [each for each in verdicts if each.decided and not each.met]
    return Objective(
        goals.p99_s,
        met=all(each.met for each in verdicts),
        text="; ".join(each.text for each in verdicts),
        # One that is missed decides, whatever the other would be.
        decided=bool(missed) or all(each.decided for each in verdicts),
        attainment=goals.attainment,
    )


def _judge_p99(result: LoadResult, p99_s: float) -> Objective:
    goal = f"{p99_s * 1e3:g} ms"
    if not result.succeeded:
        return Objective(
            p99_s, False, f"objective missed: no request succeeded (p99 of {goal} asked)"
        )
    measured_s = result.p99_of_all_s
    if result.requests < LEAST_REQUESTS and not _missed_by_two(result, p99_s):
        text = f"too few to tell a 99th percentile; expected {LEAST_REQUESTS} at least (p99 of {goal} asked)"
        return Objective(p99_s, False, _not_judged(result, text), decided=False)
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


def _judge_attainment(result: LoadResult, goal: float) -> Objective:
    verdict = partial(Objective, None, attainment=goal)
    asked = f"attainment of {share_text(goal)} asked"
    if not result.requests or result.attained is None:
        nothing = "had a deadline" if result.requests else "was due"
        return verdict(met=False, text=f"objective missed: no request {nothing} ({asked})")
    requests, missed = result.requests, result.requests - result.attained.in_time
    least = _least_requests(goal)
    # So many may miss of the fewest that tell the share: more have missed it whatever the rest do.
    if requests < least and missed <= (1 - goal) * least:
        text = f"too few to tell an attainment; expected {least:,} at least ({asked})"
        return verdict(met=False, text=_not_judged(result, text), decided=False)
    measured = f"{1 - missed / requests:.2%} of the requests were answered in time"
    met = missed <= (1 - goal) * requests + 1e-9
    return verdict(met=met, text=f"objective {'met' if met else 'missed'}: {measured} ({asked})")


def _least_requests(share: float) -> int:
    """Requests of which one may miss this share at least, and not fewer than for a p99."""
    return LEAST_REQUESTS if share >= 1 else max(LEAST_REQUESTS, math.ceil(1 / (1 - share) - 1e-9))


def _not_judged(result: LoadResult, text: str) -> str:
    requests = f"{result.requests} request{'' if result.requests == 1 else 's'}"
    return f"objective not judged: {requests} in {result.window_s:.3g} s are {text}: measure longer"
