"""Lists of numbers as people write them: `8`, `1,2,4`, `1:9:2`, `1:64:x2`."""

import math

from rootserve.client.errors import InputError

_MOST = 1000


def parse_series(name: str, text: str) -> tuple[float, ...]:
    """The numbers a text lists, in the order given.

    Parts are separated by commas. A part is a number or a range FROM:TO, with an optional :STEP
    to add (1 when it is missing) or :xFACTOR to multiply by. TO is included if it is reached.

    Args:
        name: Of the option, for the error.
        text: What was written.

    Raises:
        InputError: It is no such list, or has more than 1,000 numbers.
    """
    numbers: list[float] = []
    for part in text.split(","):
        numbers += _part(name, text, part.strip())
        if len(numbers) > _MOST:
            raise InputError(f"{name} {text}: expected at most {_MOST:,} values")
    return tuple(numbers)


def _part(name: str, text: str, part: str) -> list[float]:
    fields = part.split(":")
    if len(fields) == 1:
        return [_number(name, text, part)]
    wrong = InputError(f"{name} {text}: expected FROM:TO, FROM:TO:STEP or FROM:TO:xFACTOR")
    if len(fields) > 3:
        raise wrong
    first, last = (_number(name, text, field) for field in fields[:2])
    step = fields[2] if len(fields) == 3 else "1"
    multiplies = step.startswith("x")
    by = _number(name, text, step.removeprefix("x"))
    if first > last or by <= (1 if multiplies else 0) or (multiplies and first <= 0):
        raise wrong
    count = math.log(last / first, by) if multiplies else (last - first) / by
    if count > _MOST:
        raise InputError(f"{name} {text}: expected at most {_MOST:,} values")
    # A grain of rounding must not cost the last value.
    steps = range(math.floor(count + 1e-9) + 1)
    return [first * by**n if multiplies else first + by * n for n in steps]


def _number(name: str, text: str, field: str) -> float:
    try:
        value = float(field)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(
            f"{name} {text}: '{field}' is no number; expected one, a list 1,2,4 "
            "or a range 1:9:2 or 1:64:x2"
        )
    return value
