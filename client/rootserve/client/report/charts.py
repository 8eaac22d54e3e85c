"""Drawings in SVG: lines, columns and stacked bars, for a given width in pixels.

Colours come from the page's style sheet, by class, so that they follow its light and dark scheme.
Each mark has a title, which browsers show under the pointer and screen readers can reach.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from rootserve.client.report.axes import Axis
from rootserve.client.report.labels import Area, leader, place
from rootserve.client.report.markup import add, element

_LETTER = 7.2  # width of a letter of the drawings' 12 pixels, in a wide font
_HEIGHT = 14.0  # of a line of them
_TOP, _BOTTOM, _RIGHT = 26.0, 40.0, 14.0
# A line of more points than this is a line without marks.
_MOST_MARKS = 40


@dataclass(frozen=True, slots=True)
class Series:
    """One line: `points` in the order they are joined, where a y of None leaves a gap.

    `titles` says what each point is. Without `marked` the points have no marks.
    """

    name: str
    style: str
    points: Sequence[tuple[float, float | None]]
    titles: Sequence[str] = ()
    joined: bool = True
    marked: bool = True


@dataclass(frozen=True, slots=True)
class Point:
    """A mark with a name; `title` is told under the pointer."""

    x: float
    y: float
    name: str
    style: str
    title: str


Stroke = tuple[str, str, Sequence[tuple[float, float]]]
"""A line: its style, its title, and the points that it joins."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the x axis that is set apart, such as the warm-up."""

    low: float
    high: float
    name: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of parts `(style, value, title)`, with a name before and a text behind it."""

    name: str
    text: str
    parts: Sequence[tuple[str, float, str]]


@dataclass(frozen=True, slots=True)
class Plane:
    """Two axes on a drawing of so many pixels."""

    x: Axis
    y: Axis
    width: float
    height: float
    left: float = field(init=False)

    def __post_init__(self) -> None:
        widest = max((len(text) for _, text in self.y.ticks), default=0)
        object.__setattr__(self, "left", 12 + _LETTER * widest)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where the point is drawn."""
        across = self.width - self.left - _RIGHT
        down = self.height - _TOP - _BOTTOM
        return self.left + across * self.x.share(x), _TOP + down * (1 - self.y.share(y))

    @property
    def frame(self) -> Area:
        """What the axes enclose."""
        return Area(self.left, _TOP, self.width - _RIGHT, self.height - _BOTTOM)

    def draw(self) -> list[Element]:
        """Grid, ticks and labels."""
        bottom = self.height - _BOTTOM
        made = [element("text", self.y.label, x=0, y=12, class_="label")]
        for value, text in self.y.ticks:
            _, y = self.at(self.x.low, value)
            made += [
                element("line", x1=self.left, x2=self.width - _RIGHT, y1=y, y2=y, class_="grid"),
                element("text", text, x=self.left - 6, y=y + 4, class_="end"),
            ]
        free = 0.0
        for value, text in self.x.ticks:
            x, _ = self.at(value, self.y.low)
            half = _LETTER * len(text) / 2
            if x - half < free:  # it would run into the one before
                continue
            free = x + half + 8
            made += [
                element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="tick"),
                element("text", text, x=min(x, self.width - half), y=bottom + 17, class_="middle"),
            ]
        made.append(
            element(
                "line", x1=self.left, x2=self.width - _RIGHT, y1=bottom, y2=bottom, class_="axis"
            )
        )
        made.append(
            element(
                "text", self.x.label, x=self.width - _RIGHT, y=self.height - 4, class_="label end"
            )
        )
        return made


def drawing(label: str, width: float, height: float) -> Element:
    """An empty drawing with its text alternative."""
    return element("svg", viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=label)


def lines(
    label: str, plane: Plane, series: Sequence[Series], spans: Sequence[Span] = ()
) -> Element:
    """Lines over the plane."""
    made = drawing(label, plane.width, plane.height)
    for span in spans:
        (x1, top), (x2, _) = plane.at(span.low, plane.y.high), plane.at(span.high, plane.y.high)
        title = element("title", span.name)
        box = {"x": x1, "y": top, "width": x2 - x1, "height": plane.height - _TOP - _BOTTOM}
        made.append(element("rect", title, class_="span", **box))
        if x2 - x1 > _LETTER * len(span.name) + 6:
            made.append(element("text", span.name, x=x1 + 4, y=top + 12, class_="faint"))
    add(made, *plane.draw())
    for each in series:
        _draw_series(made, plane, each)
    return made


def _draw_series(made: Element, plane: Plane, series: Series) -> None:
    if series.joined:
        for stretch in _stretches(series.points):
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in (plane.at(*p) for p in stretch))
            made.append(
                element(
                    "path", element("title", series.name), d=path, class_=f"line {series.style}"
                )
            )
    if not series.marked:
        return
    small = len(series.points) <= _MOST_MARKS
    for n, (x, y) in enumerate(series.points):
        if y is None:
            continue
        cx, cy = plane.at(x, y)
        title = element("title", series.titles[n]) if series.titles else None
        # Without marks there is still something to point at.
        style = f"mark {series.style}" if small else "pointer"
        made.append(element("circle", title, cx=cx, cy=cy, r=3.5 if small else 6, class_=style))


def named(made: Element, plane: Plane, points: Sequence[Point], lines: Sequence[Stroke]) -> None:
    """Marks with their names beside them, so that none covers another; `lines` are drawn below them.

    The names of the points come first that are first. One for which there is no room is left out: its mark
    tells it under the pointer.
    """
    strokes = []
    for style, title, ends in lines:
        spots = [plane.at(*end) for end in ends]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
        made.append(element("path", element("title", title), d=path, class_=f"line {style}"))
        strokes += list(itertools.pairwise(spots))
    spots = [plane.at(point.x, point.y) for point in points]
    sizes = [(_LETTER * len(point.name), _HEIGHT) for point in points]
    areas = place(spots, sizes, plane.frame, strokes)
    for point, spot, area in zip(points, spots, areas, strict=True):
        if area is not None and (line := leader(spot, area)):
            (x1, y1), (x2, y2) = line
            made.append(element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="leader"))
        told = element("title", point.title)
        place_of = {"cx": spot[0], "cy": spot[1], "r": 4.5}
        made.append(element("circle", told, class_=f"mark {point.style}", **place_of))
        if area is not None:
            x, y = (area.left + area.right) / 2, area.bottom - 3
            made.append(element("text", point.name, x=x, y=y, class_="name middle"))


def _stretches(
    points: Sequence[tuple[float, float | None]],
) -> list[list[tuple[float, float]]]:
    """The points between the gaps."""
    stretches: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            stretches.append([])
        else:
            stretches[-1].append((x, y))
    return [stretch for stretch in stretches if stretch]


def stacks(label: str, plane: Plane, bars: Sequence[tuple[float, float, Bar]]) -> Element:
    """Stacked columns `(from x, to x, parts)`."""
    made = drawing(label, plane.width, plane.height)
    add(made, *plane.draw())
    for low, high, bar in bars:
        base = 0.0
        for style, value, title in bar.parts:
            (x1, y1), (x2, y2) = plane.at(low, base), plane.at(high, base + value)
            base += value
            box = {"x": x1, "y": y2, "width": max(1.0, x2 - x1), "height": max(0.0, y1 - y2)}
            made.append(element("rect", element("title", title), class_=f"fill {style}", **box))
    return made


def bars(label: str, width: float, rows: Sequence[Bar], scale: float) -> Element:
    """Stacked bars across; `scale` is the value of the full width."""
    left = 10 + _LETTER * max((len(row.name) for row in rows), default=0)
    right = 10 + _LETTER * max((len(row.text) for row in rows), default=0)
    step, thick = 30.0, 18.0
    made = drawing(label, width, step * len(rows) + 4)
    across = max(40.0, width - left - right)
    for n, row in enumerate(rows):
        y = n * step + 4
        made.append(element("text", row.name, x=left - 8, y=y + 13, class_="end name"))
        x = left
        for style, value, title in row.parts:
            length = across * value / scale if scale > 0 else 0.0
            if length <= 0:
                continue
            box = {"x": x, "y": y, "width": max(0.5, length), "height": thick}
            made.append(element("rect", element("title", title), class_=f"fill {style}", **box))
            x += length
        made.append(element("text", row.text, x=x + 7, y=y + 13, class_="value"))
    return made
