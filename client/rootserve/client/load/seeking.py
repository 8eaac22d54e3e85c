"""The runs of a search for the highest rate: which one is next, and what each has found."""

from dataclasses import replace

from rootserve.client.errors import ServerError
from rootserve.client.load.objective import Goals, judge
from rootserve.client.load.options import LoadOptions
from rootserve.client.load.report import LoadResult, Step
from rootserve.client.load.search import STRAY_MISS, Found, Search

# Without a rate to begin with, the search begins at a share of what a closed loop got.
_FIRST_CALLERS = 16
_FIRST_SHARE = 0.7
# At low rates the runs of a search are longer, so that enough requests come to judge: half as many more
# than needed, as they come by chance. Rates at which that takes longer than this are not tried.
_ENOUGH = 1.5
_MOST_TIMES_LONGER = 10


def first_run(options: LoadOptions) -> LoadOptions:
    """The run that tells where to begin: a closed loop."""
    callers = max(_FIRST_CALLERS, options.processes)
    return replace(options, rate=None, concurrency=callers)


def first_rate(result: LoadResult) -> float:
    """Where to begin, in requests per second, after that run.

    Raises:
        ServerError: Nothing was answered that would tell.
    """
    rate = result.throughput_requests_per_s * _FIRST_SHARE
    if rate <= 0:
        code = max(result.errors, key=lambda code: result.errors[code], default="CANCELLED")
        raise ServerError(
            code, f"none of {result.requests:,} requests succeeded; there is nothing to search"
        )
    return rate


class RateSearch:
    """The search of one load, a run at a time.

    Attributes:
        steps: What each run has found.
        found: What is known so far.

    Args:
        options: The runs, but for their rate; those at low rates are made longer.
        goals: The objectives, of all requests; failed ones are endless and not in time.
        precision: End when half of the 95 % interval is at most this share of the limit.
        start: Rate of the first run, in requests per second.
        stray_miss: How probable it is that a run far below the limit misses all the same.
    """

    def __init__(
        self,
        options: LoadOptions,
        goals: Goals,
        *,
        precision: float,
        start: float,
        stray_miss: float = STRAY_MISS,
    ) -> None:
        longest_s = _MOST_TIMES_LONGER * options.duration_s
        self._search = Search(
            round(start, 3),
            precision=precision,
            lowest=_ENOUGH * goals.least_requests / longest_s,
            stray_miss=stray_miss,
        )
        self._options = options
        self._goals = goals
        self.steps: list[Step] = []
        self.found: Found = self._search.found()

    def next_run(self) -> LoadOptions | None:
        """The run to make next; None when the search has ended."""
        rate = self._search.next_rate()
        if rate is None:
            return None
        enough_s = _ENOUGH * self._goals.least_requests / rate
        duration_s = max(self._options.duration_s, enough_s)
        return replace(self._options, rate=rate, concurrency=None, duration_s=duration_s)

    def tell(self, run: LoadOptions, result: LoadResult, level: int) -> None:
        """What that run measured; `level` is its place among all runs."""
        rate = run.rate
        assert isinstance(rate, int | float)  # it is a run of this search
        verdict = judge(result, self._goals)
        held = verdict.met if verdict.decided else None
        self._search.tell(rate, held=held)
        attainment = result.attained.attainment if result.attained else None
        self.steps.append(Step(rate, held, result.p99_of_all_s, level, attainment))
        self.found = self._search.found()
