"""Files that the commands write and read, with errors that say what was expected."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rootserve.client.errors import InputError

T = TypeVar("T")

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


def write_picture(save: Callable[[Path], object], path: Path, example: str) -> None:
    """Have ``save`` write a picture, such as ``example``.

    Raises:
        InputError: It cannot.
    """
    try:
        save(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: the picture cannot be written ({error}); expected a name such as {example} "
            "in a folder that exists"
        ) from None


def write_text(text: str, path: Path) -> None:
    """Write a file in UTF-8.

    Raises:
        InputError: It cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); {_EXPECTED}") from None


def read_document(path: Path, from_json: Callable[[Any], T], expected: str) -> T:
    """What ``from_json`` makes of the JSON at ``path``; ``expected`` says what should be there.

    Raises:
        InputError: The file cannot be read, is no JSON, or ``from_json`` refuses it.
    """
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {expected}") from None
    except ValueError:
        raise InputError(f"{path}: is no JSON; {expected}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
