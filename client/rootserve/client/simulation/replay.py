"""What a scheduler was told and what it answered, recorded as it is driven, and told to another one again.

A scheduler is pure: the same calls give the same answers. So a run of a live server, recorded by giving its
dispatcher a `Recorder`, can be followed call by call, here or with another policy.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rootserve.server.core.latency import LatencyTable
from rootserve.server.core.limits import Limits
from rootserve.server.core.policy import Policy
from rootserve.server.core.scheduler import Scheduler

_TOLD = (
    "model_measured",
    "family_served",
    "family_gone",
    "drop_model",
    "offer",
    "cancel",
    "worker_ready",
    "worker_alive",
    "worker_lost",
    "batch_done",
    "poll",
)
"""All that changes a scheduler; what only asks is left out."""


class Call(NamedTuple):
    """A method of a scheduler, with what it was told and what it answered."""

    method: str
    args: tuple[Any, ...]
    answer: Any


class Difference(NamedTuple):
    """Where a replay parts from what was recorded: the place of the call, and what was answered now."""

    place: int
    call: Call
    answer: Any


class Recorder(Scheduler):
    """A scheduler that keeps all calls that change it, in their order."""

    def __init__(
        self, limits: Limits, policy: Policy | None = None, table: LatencyTable | None = None
    ) -> None:
        super().__init__(limits, policy, table)
        self.calls: list[Call] = []
        self._within = False

    def _recorded(self, method: str, args: tuple[Any, ...]) -> Any:
        """Have it done, and keep it, unless it is part of another call."""
        # What can be gone through only once would be empty in the replay.
        kept = tuple(tuple(each) if _is_stream(each) else each for each in args)
        if self._within:
            return getattr(super(), method)(*kept)
        self._within = True
        try:
            answer = getattr(super(), method)(*kept)
        finally:
            self._within = False
        self.calls.append(Call(method, kept, answer))
        return answer


def _is_stream(value: object) -> bool:
    return hasattr(value, "__next__")


def _method(name: str) -> Any:
    def recorded(self: Recorder, *args: Any, **named: Any) -> Any:
        return self._recorded(name, _positional(name, args, named))

    recorded.__name__ = name
    recorded.__doc__ = f"See `Scheduler.{name}`."
    return recorded


def _positional(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """All arguments in their order, however they were given."""
    if not named:
        return args
    code = getattr(Scheduler, name).__code__
    order = code.co_varnames[1 + len(args) : code.co_argcount]
    return (*args, *(named[each] for each in order if each in named))


for _name in _TOLD:
    setattr(Recorder, _name, _method(_name))


def replay(calls: Sequence[Call], scheduler: Scheduler) -> Difference | None:
    """Tell a fresh scheduler the same; gives the first call that it answers otherwise, if there is one."""
    for place, call in enumerate(calls):
        answer = getattr(scheduler, call.method)(*call.args)
        if answer != call.answer:
            return Difference(place, call, answer)
    return None
