"""How to measure a choice, and how long that may take."""

import math
from dataclasses import dataclass

from rootserve.client.dataset import Dataset
from rootserve.client.errors import InputError

_MINUTES_EACH, _MINUTES_MOST = 1.0, 9.0
_MOST_MINUTES = 24 * 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to measure.

    Args:
        p99_s: The objective: the 99th percentile of the response times, in seconds.
        models: Patterns of the names of those to measure, of all that are served.
        rate: The rate that is to be held, in requests per second; it is for the recommendation alone.
        rows: Images of each request.
        minutes: How long all may take; None takes one for each variant, and at most 9.
        data: Images and labels to measure the accuracy on; None takes the server's catalogue's.
        duration_s: Length of a run, if enough requests come in it.
        warmup_s: Time under load before it.

    Raises:
        InputError: A value is out of its range.
    """

    p99_s: float
    models: str = "*"
    rate: float | None = None
    rows: int = 1
    minutes: float | None = None
    data: Dataset | None = None
    duration_s: float = 2.0
    warmup_s: float = 0.5

    def __post_init__(self) -> None:
        for name, value, most, unit in (
            ("slo-p99-ms", self.p99_s * 1e3, 86_400_000.0, "milliseconds"),
            ("rate", self.rate, 100_000.0, "requests per second"),
            ("minutes", self.minutes, _MOST_MINUTES, "minutes"),
        ):
            if value is not None and not (math.isfinite(value) and 0 < value <= most):
                raise InputError(
                    f"{name} {value:g}: expected more than 0 and up to {most:,g} {unit}"
                )
        if self.rows < 1:
            raise InputError(f"rows {self.rows}: expected at least 1")

    def budget_s(self, models: int) -> float:
        """How long the measurement of so many models may take, in seconds."""
        minutes = self.minutes or min(_MINUTES_EACH * models, _MINUTES_MOST)
        return 60 * minutes
