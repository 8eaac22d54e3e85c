"""Axes: from values to places on a drawing, and the round values that are written at them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Format = Callable[[float], str]
_MOST_LOG_TICKS = 9


@dataclass(frozen=True, slots=True)
class Axis:
    """The values `low` to `high`, linear or logarithmic, and the ticks `(value, text)` on it."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value lies, 0..1; values beyond the ends lie at them."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        return min(1.0, max(0.0, (value - low) / (high - low)))


def linear(
    label: str, values: Sequence[float], form: Format, *, most_ticks: int = 6, exact: bool = False
) -> Axis:
    """From 0 to a round value above the greatest, or `exact` to that.

    Whole numbers get ticks at whole numbers.
    """
    greatest = max(values, default=0.0) or 1.0
    step = _round_step(greatest / most_ticks)
    if all(float(value).is_integer() for value in values):
        step = max(1.0, step)
    steps = math.floor(greatest / step + 1e-9) if exact else math.ceil(greatest / step - 1e-9)
    ticks = [(n * step, form(n * step) if n else "0") for n in range(steps + 1)]
    return Axis(label, 0.0, greatest if exact else steps * step, ticks)


def around(label: str, values: Sequence[float], form: Format, *, least: float) -> Axis:
    """A little more than the values, which are not negative, and at least so much; ticks at round values."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    missing = max(0.0, least - (high - low)) / 2
    margin = missing + 0.1 * max(least, high - low)
    low, high = max(0.0, low - margin), high + margin
    step = _round_step((high - low) / 6)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [(n * step, form(n * step)) for n in range(first, last + 1)]
    return Axis(label, low, high, ticks)


def of_shares(label: str, values: Sequence[float]) -> Axis:
    """A little more than shares 0..1, in percent, and nothing above all."""
    found = around(label, values, lambda share: f"{round(100 * share, 6):g}%", least=0.02)
    ticks = [(value, text) for value, text in found.ticks if value <= 1]
    return Axis(label, found.low, min(found.high, 1.0), ticks)


def logarithmic(label: str, values: Sequence[float], form: Format) -> Axis:
    """Between powers of ten, or 1, 2 and 5 times them, around positive values."""
    positive = [value for value in values if value > 0] or [1.0]
    low = _below(min(positive))
    high = _below(max(positive) * (1 - 1e-9))
    ticks = [low]
    while ticks[-1] <= high * (1 + 1e-9) or len(ticks) < 2:
        ticks.append(_next(ticks[-1]))
    if len(ticks) > _MOST_LOG_TICKS:
        ticks = [tick for tick in ticks if _leading(tick) == 1] or ticks
    return Axis(
        f"{label} (log)",
        min(low, ticks[0]),
        max(ticks[-1], *positive),
        [(tick, form(tick)) for tick in ticks],
        logarithmic=True,
    )


def of_times(label: str, values: Sequence[float], form: Format) -> Axis:
    """Logarithmic if the values differ by more than twentyfold, else linear."""
    positive = [value for value in values if value > 0]
    if positive and max(positive) > 20 * min(positive):
        return logarithmic(label, values, form)
    return linear(label, values, form)


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least * (1 - 1e-9))


def _leading(value: float) -> int:
    return round(value / float(10.0 ** math.floor(math.log10(value) + 1e-9)))


def _below(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    return float(max(step for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)) * power)


def _next(value: float) -> float:
    return value * (2.5 if _leading(value) == 2 else 2)
