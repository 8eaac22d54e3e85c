"""How long batches take, learned from those that were done."""

from __future__ import annotations


class Durations:
    """Moving averages of compute seconds per model, kind of worker and batch size.

    Sizes share an average between powers of two: 1, 2, 3..4, 5..8, ... A size that was not seen yet
    is told from the nearest one that was, in proportion to the rows when that one is smaller.
    """

    def __init__(self, weight: float = 0.2) -> None:
        self._weight = weight
        self._averages: dict[tuple[str, str], dict[int, float]] = {}

    def learn(self, model: str, rows: int, seconds: float, kind: str = "") -> None:
        """Take a batch of ``rows`` that took ``seconds`` into account."""
        averages = self._averages.setdefault((model, kind), {})
        size = _size_class(rows)
        known = averages.get(size)
        averages[size] = seconds if known is None else known + self._weight * (seconds - known)

    def predict(self, model: str, rows: int, kind: str = "") -> float | None:
        """Expected seconds for a batch of ``rows``; None while nothing is known of the model there."""
        averages = self._averages.get((model, kind))
        if not averages:
            return None
        size = _size_class(rows)
        if size in averages:
            return averages[size]
        nearest = min(averages, key=lambda known: abs(known - size))
        return averages[nearest] * 2.0 ** max(0, size - nearest)


def _size_class(rows: int) -> int:
    return (rows - 1).bit_length()
