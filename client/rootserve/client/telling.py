"""Says what goes on while something takes long."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

_LINE_EVERY_S = 10.0
Tell = Callable[[str], None]


@contextmanager
def telling(screen: Console, clock: Callable[[], float] = time.monotonic) -> Iterator[Tell]:
    """What to tell it: on a terminal one line that changes, off it a plain line every ten seconds."""
    if screen.is_terminal:
        # Drawing takes from the processors that are measured: twice a second is enough.
        with screen.status("connecting", refresh_per_second=2) as status:
            yield lambda text: status.update(escape(text))
        return
    next_s = clock() + _LINE_EVERY_S

    def tell(text: str) -> None:
        nonlocal next_s
        if clock() >= next_s:
            next_s = clock() + _LINE_EVERY_S
            screen.print(text, markup=False, soft_wrap=True)

    yield tell


def time_left(seconds: float) -> str:
    """Such as "4 min 10 s": for whoever waits, in steps of ten seconds while it is minutes."""
    if seconds < 60:
        return f"{max(0.0, seconds):.0f} s"
    tens = round(seconds / 10)
    return f"{tens // 6} min {tens % 6 * 10:02d} s"
