"""Whether a load run has become stable: window after window measured the same. Pure."""

from collections.abc import Sequence

from rootserve.client.load.report import Trial
from rootserve.client.load.result import STABLE_TRIALS


def is_stable(trials: Sequence[Trial], within: float) -> bool:
    """Whether throughput and p99 of the last three windows lie `within` a share of their mean.

    A window without answers is never stable.
    """
    last = trials[-STABLE_TRIALS:]
    if len(last) < STABLE_TRIALS:
        return False
    throughputs = [trial.throughput_requests_per_s for trial in last]
    p99s = [trial.p99_s for trial in last if trial.p99_s is not None]
    return len(p99s) == len(last) and all(_agree(each, within) for each in (throughputs, p99s))


def _agree(values: Sequence[float], within: float) -> bool:
    mean = sum(values) / len(values)
    return mean > 0 and all(abs(value - mean) <= within * mean for value in values)
