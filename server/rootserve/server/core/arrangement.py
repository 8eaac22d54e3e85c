"""Whether batches of single variants are computed one at a time or side by side: it follows the load.

A worker with several *lanes* has one pool of threads for all that it computes. A batch *alone* has all of
them, also within one image. Batches *side by side* share them, an image and a thread each, in the order in
which the batches came; what one batch leaves idle, the next one uses. Alone, a single image is
there sooner, by the ``speed_up`` that was measured when the model was loaded; but with n requests at a time,
side by side answers n in the time of one. So they go side by side from about as many requests at a time as
alone is times faster.

How many there are is an average of what requests find when they come, and two thresholds lie apart, so that
chance does not turn the decision back and forth.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

_ARRIVALS: Final = 8
"""Of so many the average is."""

_AVERAGE_S: Final = 0.1
"""What came longer ago counts little, however few have come since."""

_BACK: Final = 0.5
"""Share of the way from one request at a time to the upper threshold at which batches go alone again."""

_LEAST: Final = 0.3
"""So many others there must be at least: whoever asks for one image at a time has no others."""

KIND_BESIDE: Final = "side by side"


def kind_beside(kind: str) -> str:
    """As what a worker of ``kind`` is known to tables of latencies where it computes side by side."""
    return f"{kind}, {KIND_BESIDE}"


class Streams(NamedTuple):
    """How a model is computed side by side: ``images`` of them at a time, each with threads of its own.

    ``images`` is 1 where batches must come one after the other. ``speed_up``: how many times as long such an
    image takes as one that has all threads.
    """

    images: int = 1
    speed_up: float = 1.0


_NONE = Streams()


class Crowd:
    """How many rows there are at a time besides those of the request that comes, as the last found it."""

    def __init__(self) -> None:
        self.others = 0.0
        self._last_s = -math.inf

    def came(self, others: float, now: float) -> None:
        """A request came, and found ``others`` rows that waited or were being computed."""
        weight = max(1.0 / _ARRIVALS, 1.0 - math.exp((self._last_s - now) / _AVERAGE_S))
        self.others += weight * (others - self.others)
        self._last_s = now


class Arrangement:
    """Decides for each batch of a single variant, and for each worker with several lanes."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, str], Streams] = {}
        self._many: dict[tuple[str, str], bool] = {}
        self.crowd = Crowd()

    def measured(self, model: str, kind: str, streams: Streams) -> None:
        """How workers of ``kind`` compute ``model`` side by side."""
        self._streams[model, kind] = streams

    def streams(self, model: str, kind: str) -> int:
        """How many images of ``model`` a worker of ``kind`` computes at a time; 1 until that is known."""
        return self._streams.get((model, kind), _NONE).images

    def goes_beside(self, model: str, kind: str, rows: int) -> bool:
        """Whether a batch of ``rows``, which finds its worker idle, leaves room for others beside it."""
        images, speed_up = self._streams.get((model, kind), _NONE)
        if images == 1:
            return False
        if rows >= 2 * images:
            return True  # all threads have an image each nearly all the time, one way or the other
        key = model, kind
        upper = max(_LEAST, speed_up - 1.0)
        many = self.crowd.others > (_BACK * upper if self._many.get(key) else upper)
        self._many[key] = many
        return many
