"""From what people write as options of a load run to values."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rootserve.client.defaults import DURATION_S, WARMUP_S
from rootserve.client.errors import InputError
from rootserve.client.load.arrivals import Arrivals, Steps, parse_arrivals
from rootserve.client.load.mix import Mix, parse_mix
from rootserve.client.load.options import LoadOptions
from rootserve.client.load.series import parse_series
from rootserve.client.load.trace import Trace, read_trace

Load = tuple[int | None, Arrivals | None]
"""Concurrency of a closed loop, or arrivals of an open one."""


def loads_of(concurrency: str | None, rate: str | None, replay: Path | None) -> list[Load]:
    """The loads of a run, or of the levels of a sweep. One argument is given.

    Raises:
        InputError: It cannot be read; the message names the option.
    """
    if replay is not None:
        return [(None, read_trace(replay))]
    if concurrency is not None:
        return [(each, None) for each in _integers("--concurrency", concurrency)]
    assert rate is not None
    arrivals = parse_arrivals(rate)
    if arrivals is not None:
        return [(None, arrivals)]
    return [(None, each) for each in parse_series("--rate", rate)]


def times_of(
    arrivals: Arrivals | None, duration_s: float | None, warmup_s: float | None
) -> tuple[float, float]:
    """Duration and warm-up in seconds; without them, those that fit the arrivals."""
    is_trace = isinstance(arrivals, Trace)
    if warmup_s is None:
        warmup_s = 0.0 if is_trace else WARMUP_S
    if duration_s is not None:
        return duration_s, warmup_s
    if isinstance(arrivals, Trace):
        return max(arrivals.length_s - warmup_s, 0.001), warmup_s
    if isinstance(arrivals, Steps):
        return arrivals.length_s, warmup_s
    return DURATION_S, warmup_s


def models_of(texts: Sequence[str]) -> str | Mix[str]:
    """A model, or several with weights."""
    return parse_mix("--model", ",".join(texts), lambda name: [name])


def integers_of(name: str, text: str) -> int | Mix[int]:
    """A whole number, or several with weights."""
    return parse_mix(name, text, lambda part: list(_integers(name, part)))


def deadlines_of(text: str) -> float | Mix[float] | None:
    """A time in milliseconds as seconds, or several with weights; `none` is no deadline."""

    def read(part: str) -> list[float]:
        if part == "none":
            return [math.inf]
        return [each / 1000 for each in parse_series("--deadline-ms", part)]

    found = parse_mix("--deadline-ms", text, read)
    return None if found == math.inf else found


def floors_of(text: str) -> float | Mix[float]:
    """An accuracy 0..1, or several with weights."""
    name = "--accuracy-floor"
    return parse_mix(name, text, lambda part: list(parse_series(name, part)))


def variants_of(text: str) -> tuple[str, ...]:
    """Names of variants, a set of them.

    Raises:
        InputError: One is missing, or there twice.
    """
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise InputError(f"--variants {text}: expected names, each once, separated by commas")
    return names


def other_side(options: LoadOptions, text: str) -> LoadOptions:
    """The other side of a pair: `MODEL`, `MODEL@HOST:PORT` or `@HOST:PORT`.

    Raises:
        InputError: It is the same as this side, or no address.
    """
    model, _, server = text.partition("@")
    other = replace(options, model=model or options.model, server=server or options.server)
    if other == options:
        raise InputError(f"--versus {text}: is what it is to be compared with")
    return other


def _integers(name: str, text: str) -> tuple[int, ...]:
    values = parse_series(name, text)
    for value in values:
        if value != int(value):
            raise InputError(f"{name} {text}: {value:g} is no whole number; expected one")
    return tuple(map(int, values))
