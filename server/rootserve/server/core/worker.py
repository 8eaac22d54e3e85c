"""A worker as the scheduler knows it."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from rootserve.server.core.decisions import Batch


class Slot(NamedTuple):
    """A worker as policies see it, and when it is expected to be through with its batches.

    ``idle``: it has none. ``last``: the variant that it was given last, or nothing.
    """

    worker: str
    kind: str
    models: frozenset[str]
    free_s: float
    idle: bool
    last: str = ""


@dataclass(slots=True)
class Worker:
    """A worker that can take batches. Those of one ``kind`` are equally fast.

    ``began_s``: since when it computes its first batch, or was last heard of at it; ``started_s``: since
    when it has that batch; ``hangs_s``: when that one counts as hanging.
    """

    name: str
    models: frozenset[str]
    kind: str
    batches: OrderedDict[int, Batch] = field(default_factory=OrderedDict)
    began_s: float = 0.0
    started_s: float = 0.0
    hangs_s: float = math.inf
    last_given_s: float = -math.inf
    last_variant: str = ""
    hung: bool = False

    def free_s(self, now: float) -> float:
        """When it is through with its batches, at most, as far as that is known."""
        end_s = self.started_s
        for batch in self.batches.values():
            end_s += batch.predicted_s or 0.0
        return end_s if self.batches and end_s > now else now

    def slot(self, now: float) -> Slot:
        """What a policy sees of it."""
        return Slot(
            self.name,
            self.kind,
            self.models,
            self.free_s(now),
            not self.batches,
            self.last_variant,
        )
