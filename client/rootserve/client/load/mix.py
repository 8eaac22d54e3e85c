"""A value that differs from request to request: several, each with its weight."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from rootserve.client.errors import InputError

T = TypeVar("T", str, int, float)


@dataclass(frozen=True, slots=True)
class Mix(Generic[T]):
    """Values and how often each one comes, relative to the others.

    Raises:
        InputError: There are none, one comes twice, or a weight is not above 0.
    """

    values: tuple[T, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values or len(self.values) != len(self.weights):
            raise InputError("a mix: expected one weight for each of its values")
        if len(set(self.values)) < len(self.values):
            raise InputError(f"{self}: one value is there twice; expected each one once")
        for weight in self.weights:
            if not (math.isfinite(weight) and weight > 0):
                raise InputError(f"weight {weight:g}: expected more than 0")

    def draw(self, count: int, random: np.random.Generator) -> list[T]:
        """So many values in random order."""
        shares = np.array(self.weights) / sum(self.weights)
        return [self.values[n] for n in random.choice(len(self.values), count, p=shares)]

    def __str__(self) -> str:
        pairs = zip(self.values, self.weights, strict=True)
        return ",".join(f"{value}={weight:g}" for value, weight in pairs)


def mix_of(value: T | Mix[T]) -> Mix[T]:
    """A single value as a mix of one."""
    return value if isinstance(value, Mix) else Mix((value,), (1.0,))


def parse_mix(name: str, text: str, read: Callable[[str], list[T]]) -> T | Mix[T]:
    """A value, a list `1,8,32` of equally frequent ones, or with weights `1=70,8=30`.

    Args:
        name: Of the option, for the error.
        text: What was written.
        read: Gives the value or values of one part, or raises InputError.

    Raises:
        InputError: It is no such list.
    """
    values: list[T] = []
    weights: list[float] = []
    for part in text.split(","):
        written, equals, weight = part.strip().partition("=")
        read_values = read(written)
        try:
            weights += [float(weight) if equals else 1.0] * len(read_values)
        except ValueError:
            raise InputError(
                f"{name} {text}: weight '{weight}' is no number; expected VALUE=WEIGHT"
            ) from None
        values += read_values
    try:
        mix = Mix(tuple(values), tuple(weights))
    except InputError as error:
        raise InputError(f"{name} {error}") from None
    return mix if len(values) > 1 else mix.values[0]
