"""Says what goes on while something takes long."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

_FIRST_LINE_S = 5.0
_LINE_EVERY_S = 10.0
Tell = Callable[[str], None]


@contextmanager
def telling(
    screen: Console, text: str, *, first_s: float = _FIRST_LINE_S, every_s: float = _LINE_EVERY_S
) -> Iterator[Tell]:
    """What to tell it: on a terminal one line that changes, off it a plain line now and then.

    The lines come whether or not something new was told: what waits for a server says so.

    Args:
        screen: Where.
        text: What goes on at first.
        first_s: When the first plain line comes, in seconds; what takes less says nothing.
        every_s: And those after it.
    """
    if screen.is_terminal:
        # Drawing takes from the processors that are measured: twice a second is enough.
        with screen.status(escape(text), refresh_per_second=2) as status:
            yield lambda text: status.update(escape(text))
        return
    lines = _Lines(screen, text)
    ended = threading.Event()
    thread = threading.Thread(target=lines.print, args=(ended, first_s, every_s), daemon=True)
    thread.start()
    try:
        yield lines.tell
    finally:
        ended.set()
        thread.join()


class _Lines:
    """What was told last, as lines."""

    def __init__(self, screen: Console, text: str) -> None:
        self._screen = screen
        self._text = text

    def tell(self, text: str) -> None:
        self._text = text

    def print(self, ended: threading.Event, first_s: float, every_s: float) -> None:
        before = ""
        pause_s = first_s
        while not ended.wait(pause_s):
            text = self._text
            line = f"still {text}" if text == before else text
            self._screen.print(line, markup=False, soft_wrap=True)
            before, pause_s = text, every_s


def time_left(seconds: float) -> str:
    """Such as "4 min 10 s": for whoever waits, in steps of ten seconds while it is minutes."""
    if seconds < 60:
        return f"{max(0.0, seconds):.0f} s"
    tens = round(seconds / 10)
    return f"{tens // 6} min {tens % 6 * 10:02d} s"
