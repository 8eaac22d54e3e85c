"""What can go wrong for a caller, as one small tree of exceptions.

    RootserveError
    ├── InputError         what the caller gave cannot be used; the message says what was expected
    ├── Unreachable        no gRPC server answers at the address
    ├── ServerError        the server refused or failed; carries its status code and words
    ├── MalformedAnswer    the server answered with something the protocol does not allow
    └── Interrupted        the user ended it; the message says what became of the work

The text of each is one line for people.
"""

from dataclasses import dataclass


class RootserveError(Exception):
    """Whatever the client reports as an expected failure."""


class InputError(RootserveError):
    """What the caller gave cannot be used."""


class Unreachable(RootserveError):  # noqa: N818 - a state of the world, as builtins name theirs
    """No gRPC server answers at the address."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What the server could have promised to a request whose deadline it could not.

    Attributes:
        model: What the request asked for.
        earliest_s: The earliest answer, in seconds from its arrival; None where nobody knows.
        accuracy_floor: The highest floor that would have fitted the deadline; None if none would.
    """

    model: str
    earliest_s: float | None
    accuracy_floor: float | None


class ServerError(RootserveError):
    """The server refused or failed.

    Attributes:
        code: Name of the gRPC status code, such as "NOT_FOUND".
        details: The server's own words.
        retry_after_s: How long the server asks to wait before the next try; None if it does not.
        promise: What it could have promised instead, if the request's deadline was all that was in the way.
    """

    def __init__(
        self,
        code: str,
        details: str,
        retry_after_s: float | None = None,
        promise: Promise | None = None,
    ) -> None:
        self.retry_after_s = retry_after_s
        self.promise = promise
        self.code = code
        self.details = details
        super().__init__(f"{code}: {details}" if details else code)

    def __reduce__(self) -> tuple[type, tuple[str, str, float | None, Promise | None]]:
        """It crosses processes, which an exception with arguments of its own does not by itself."""
        return type(self), (self.code, self.details, self.retry_after_s, self.promise)


class MalformedAnswer(RootserveError):  # noqa: N818 - names what came, not what happened
    """The server answered with something the protocol does not allow."""


class Interrupted(RootserveError):  # noqa: N818 - names what happened, as KeyboardInterrupt does
    """The user ended it."""
