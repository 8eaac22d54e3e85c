"""What was kept of deadlines and accuracy floors: counted, and as figures."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rootserve.client.load.report import Attained
from rootserve.client.load.requests import Kind

# Accuracies come as they are written and as floats of the wire.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Kept:
    """Of answers, [N] each.

    Attributes:
        in_time: Whether within their deadline from the instant they were due.
        from_arrival: Whether within their deadline from their arrival in the server.
        accuracies: Of what computed them; not a number where it is not known.
        floors: What they asked for at least.
    """

    in_time: NDArray[np.bool_]
    from_arrival: NDArray[np.bool_]
    accuracies: NDArray[np.float64]
    floors: NDArray[np.float64]

    def some(self, chosen: NDArray[np.bool_]) -> "Kept":
        """Of those that are chosen."""
        return Kept(
            self.in_time[chosen],
            self.from_arrival[chosen],
            self.accuracies[chosen],
            self.floors[chosen],
        )


class Promises:
    """What the kinds of requests ask for, as arrays over their indexes: [K] each.

    Attributes:
        deadlines_s: Seconds; infinite where a kind has none.

    Args:
        kinds: All of them.
        accuracies: Of their models, 0..1, for answers that do not tell their own; None where not known.
    """

    def __init__(self, kinds: Sequence[Kind], accuracies: Sequence[float | None]) -> None:
        self.deadlines_s = np.array([kind.deadline_s or math.inf for kind in kinds], float)
        self._floors = np.array([kind.accuracy_floor or 0.0 for kind in kinds], float)
        self._accuracies = np.array([math.nan if one is None else one for one in accuracies], float)

    def kept(self, answers: NDArray[np.void]) -> Kept:
        """What answers [N] kept, of the fields that `load/recording.py` gives them."""
        kinds, told, total_s = answers["kind"], answers["accuracy"], answers["total_s"]
        deadlines_s = self.deadlines_s[kinds]
        # A server that tells no timeline is timed from the sending.
        since_arrival_s = np.where(
            np.isnan(total_s), answers["done_s"] - answers["sent_s"], total_s
        )
        return Kept(
            in_time=answers["done_s"] - answers["due_s"] <= deadlines_s,
            from_arrival=since_arrival_s <= deadlines_s,
            accuracies=np.where(np.isnan(told), self._accuracies[kinds], told),
            floors=self._floors[kinds],
        )


class AttainedTally:
    """Answered requests by whether they came in time, and how accurate they are. Tallies add up exactly."""

    def __init__(self) -> None:
        self.in_time = 0
        self.in_time_from_arrival = 0
        self.late = 0
        self.broken = 0
        self.below_floor = 0
        self.accuracy_sum = 0.0
        self.unknown = 0
        self.variants: Counter[str] = Counter()

    def add(self, kept: Kept) -> None:
        """Add answers."""
        number, in_time = len(kept.in_time), int(kept.in_time.sum())
        self.in_time += in_time
        self.late += number - in_time
        from_arrival = int(kept.from_arrival.sum())
        self.in_time_from_arrival += from_arrival
        self.broken += number - from_arrival
        self.below_floor += int((kept.accuracies < kept.floors - _ROUNDING).sum())
        known = ~np.isnan(kept.accuracies)
        self.unknown += int((kept.in_time & ~known).sum())
        self.accuracy_sum += float(kept.accuracies[kept.in_time & known].sum())

    def merge(self, other: Self) -> None:
        """Add what another one counted."""
        for name, value in vars(other).items():
            if name != "variants":
                setattr(self, name, getattr(self, name) + value)
        self.variants.update(other.variants)

    def figures(self, requests: int) -> Attained:
        """As figures of so many requests that were due."""
        known = self.unknown == 0
        return Attained(
            in_time=self.in_time,
            late=self.late,
            promises_broken=self.broken,
            below_floor=self.below_floor,
            attainment=self.in_time / requests if requests else None,
            attainment_from_arrival=self.in_time_from_arrival / requests if requests else None,
            accuracy_goodput=self.accuracy_sum / requests if requests and known else None,
            mean_accuracy=self.accuracy_sum / self.in_time if self.in_time and known else None,
            variants=dict(sorted(self.variants.items())),
        )
