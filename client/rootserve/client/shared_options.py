"""Options that several commands share, declared once."""

import functools
import inspect
from collections.abc import Callable
from typing import Any


def with_options(
    command: Callable[..., None], options: Callable[..., object], argument: str
) -> Callable[..., None]:
    """``command`` with the parameters of ``options`` as well; it gets what that returns as ``argument``."""
    own = inspect.signature(command, eval_str=True)
    added = inspect.signature(options, eval_str=True).parameters

    @functools.wraps(command)
    def extended(**arguments: Any) -> None:
        made = options(**{name: arguments.pop(name) for name in added})
        command(**arguments, **{argument: made})

    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*own.parameters.values(), *added.values())
        if parameter.name != argument
    ]
    # Typer builds the command line from these two.
    extended.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    extended.__annotations__ = {each.name: each.annotation for each in parameters}
    return extended
