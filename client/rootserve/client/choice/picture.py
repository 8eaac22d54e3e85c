"""The picture of a choice: accuracy over the highest rate, the Pareto set joined."""

from xml.etree.ElementTree import Element

from rootserve.client.choice.columns import PAGE, in_order, rate_text
from rootserve.client.choice.document import Choice, Variant
from rootserve.client.choice.pareto import pareto_set
from rootserve.client.report import axes, charts
from rootserve.client.report.charts import Plane, Point, Stroke
from rootserve.client.report.figures import Figure
from rootserve.client.report.markup import add
from rootserve.client.units import percent

_ORDER = {"set": 0, "near": 1, "dominated": 2}
_LEGEND = {
    "set": "in the Pareto set",
    "near": "near it: kept out by the uncertainty alone",
    "dominated": "dominated: another is as good in both, and better in one",
}
_HEIGHT = 400


def picture(choice: Choice) -> list[Figure[Variant]]:
    """The picture, with all numbers below it; none if nothing can be drawn."""
    drawn = sorted(
        (each for each in choice.variants if each.place is not None),
        key=lambda each: (_ORDER[each.place or ""], -(each.accuracy or 0.0)),
    )
    if not drawn:
        return []
    best = pareto_set(choice.variants)
    legend = [
        (f"fill {place}", words)
        for place, words in _LEGEND.items()
        if any(each.place == place for each in drawn)
    ]
    if any(each.low is not None for each in drawn):
        legend.append(("line interval", "95 % interval of the rate"))
    if choice.rate is not None:
        legend.append(("line objective", f"the rate asked for: {rate_text(choice.rate)}/s"))
    names = ", ".join(each.name for each in best)
    return [
        Figure(
            "Accuracy over the highest rate",
            f"The highest rate at which the 99th percentile stays within {choice.p99_s * 1e3:g} ms. "
            "Better is to the right and above. The axes may begin above zero.",
            f"The Pareto set, from the most accurate to the fastest: {names}.",
            lambda label, width: _draw(label, width, choice, drawn, best),
            in_order(list(choice.variants)),
            PAGE,
            legend,
        )
    ]


def _draw(
    label: str, width: float, choice: Choice, drawn: list[Variant], best: list[Variant]
) -> Element:
    ends = [end for each in drawn for end in (each.low, each.high, each.rate) if end is not None]
    if choice.rate is not None:
        ends.append(choice.rate)
    x = axes.around("requests/s", ends, rate_text, least=0.1 * max(ends))
    accuracies = [100 * (each.accuracy or 0.0) for each in drawn]
    y = axes.around("accuracy (top-1), %", accuracies, lambda value: f"{value:.4g}", least=1.0)
    plane = Plane(x, y, width, _HEIGHT)
    made = charts.drawing(label, width, _HEIGHT)
    add(made, *plane.draw())
    strokes: list[Stroke] = [
        ("interval", f"{each.name}: 95 % interval", [(each.low, at), (each.high, at)])
        for each, at in zip(drawn, accuracies, strict=True)
        if each.low is not None and each.high is not None
    ]
    if choice.rate is not None:
        line = [(choice.rate, y.low), (choice.rate, y.high)]
        strokes.append(("objective", f"{rate_text(choice.rate)}/s", line))
    if len(best) > 1:
        joined = [(each.rate or 0.0, 100 * (each.accuracy or 0.0)) for each in best]
        strokes.insert(0, ("front", "the Pareto set", joined))
    points = [
        Point(each.rate or 0.0, at, _short(each, drawn), str(each.place), _title(each))
        for each, at in zip(drawn, accuracies, strict=True)
    ]
    charts.named(made, plane, points, strokes)
    return made


def _short(variant: Variant, drawn: list[Variant]) -> str:
    """Its name, without the family where all are of one."""
    if len({each.family for each in drawn}) > 1:
        return variant.name
    return variant.name.removeprefix(f"{variant.family}-")


def _title(variant: Variant) -> str:
    told = [f"{column.name} {column.text(variant)}" for column in PAGE[2:6]]
    return f"{variant.name}: accuracy {percent(variant.accuracy)}, {', '.join(told)}"
