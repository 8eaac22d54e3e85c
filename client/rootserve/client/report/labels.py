"""Where names are written beside the points of a drawing, so that none covers another. Pure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Spot = tuple[float, float]
# From a point to the edge of its name, in pixels: the nearest that is free is taken.
_DISTANCES = (8.0, 14.0, 22.0, 32.0, 44.0, 58.0, 74.0, 92.0)
_DIRECTIONS = 24
_MARK, _APART = 6.0, 2.0
# What it is worth, in pixels of distance, not to cover a line, to stand beside the point, and that the
# line to the name goes over no other name or mark.
_LINE_COST, _SLANT_COST = 24.0, 4.0
_CROSSING_COST = 60.0
_NEAR = 10.0
"""A name that is further from its point than this needs a line to it."""


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle: left, top, right and bottom, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Area") -> bool:
        """Whether the two have anything in common."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def holds(self, other: "Area") -> bool:
        """Whether the other lies within."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.top <= other.top
            and other.bottom <= self.bottom
        )

    def nearest(self, spot: Spot) -> Spot:
        """The point of it that is nearest to a spot."""
        x, y = spot
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)

    def grown(self, by: float) -> "Area":
        """It with so much more on each side."""
        return Area(self.left - by, self.top - by, self.right + by, self.bottom + by)


def place(
    spots: Sequence[Spot],
    sizes: Sequence[Spot],
    frame: Area,
    lines: Sequence[tuple[Spot, Spot]] = (),
) -> list[Area | None]:
    """Where the name of each point stands; None where there is no room left for it.

    Args:
        spots: The points, those first whose names matter most.
        sizes: Width and height of each name.
        frame: Within which they must stand.
        lines: Such as are better not written over, from spot to spot.
    """
    marks = [Area(x, y, x, y).grown(_MARK) for x, y in spots]
    pieces = [piece for line in lines for piece in _pieces(*line)]
    taken: list[Area] = []
    placed: list[Area | None] = []
    for spot, size in zip(spots, sizes, strict=True):
        others = [*taken, *(mark for mark in marks if mark.nearest(spot) != spot)]
        free = [
            (
                cost
                + _LINE_COST * any(area.overlaps(piece) for piece in pieces)
                + _CROSSING_COST * _crosses(spot, area, others),
                n,
                area,
            )
            for n, (cost, area) in enumerate(_candidates(spot, size))
            if frame.holds(area) and not any(area.overlaps(other) for other in (*taken, *marks))
        ]
        best = min(free)[2] if free else None
        placed.append(best)
        if best is not None:
            taken.append(best.grown(_APART))
    return placed


def leader(spot: Spot, area: Area) -> tuple[Spot, Spot] | None:
    """The line from a point to its name; None if it stands near."""
    end = area.nearest(spot)
    length = math.dist(spot, end)
    if length <= _NEAR:
        return None
    share = _MARK / length
    begin = (spot[0] + share * (end[0] - spot[0]), spot[1] + share * (end[1] - spot[1]))
    return begin, end


def _crosses(spot: Spot, area: Area, others: Sequence[Area]) -> bool:
    """Whether a line is needed to the name, and goes over something else."""
    line = leader(spot, area)
    if line is None:
        return False
    return any(piece.overlaps(other) for piece in _pieces(*line) for other in others)


def _candidates(spot: Spot, size: Spot) -> Iterator[tuple[float, Area]]:
    """Places of a name and what each costs."""
    (x, y), (width, height) = spot, size
    for distance in _DISTANCES:
        for n in range(_DIRECTIONS):
            across, down = (turn(2 * math.pi * n / _DIRECTIONS) for turn in (math.cos, math.sin))
            middle_x = x + across * (distance + width / 2)
            middle_y = y + down * (distance + height / 2)
            area = Area(
                middle_x - width / 2, middle_y - height / 2,
                middle_x + width / 2, middle_y + height / 2,
            )  # fmt: skip
            yield distance + _SLANT_COST * abs(down), area


def _pieces(begin: Spot, end: Spot) -> Iterator[Area]:
    """A line as small areas."""
    steps = max(1, math.ceil(math.dist(begin, end) / 4))
    for n in range(steps + 1):
        x, y = (a + (b - a) * n / steps for a, b in zip(begin, end, strict=True))
        yield Area(x, y, x, y).grown(1.0)
