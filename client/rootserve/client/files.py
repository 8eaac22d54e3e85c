"""Files that the commands write, with errors that say what was expected."""

from pathlib import Path

from rootserve.client.errors import InputError

_EXPECTED = "expected a file in a folder that exists"


def check_writable(path: Path) -> None:
    """Make sure that a file can be written there, before the time to measure it is spent.

    Raises:
        InputError: It cannot; the message says why.
    """
    existed = path.exists()
    try:
        with path.open("a"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); {_EXPECTED}") from None


def write_text(text: str, path: Path) -> None:
    """Write a file in UTF-8.

    Raises:
        InputError: It cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); {_EXPECTED}") from None
