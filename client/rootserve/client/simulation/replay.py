"""What a scheduler was told and what it answered, recorded as it is driven, and told to another one again.

A scheduler is pure: the same calls give the same answers. So a run of a live server, recorded by giving its
dispatcher a `Recorder`, can be followed call by call, here or with another policy.
"""

from collections.abc import Callable, Sequence
from functools import partial
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
    named: dict[str, Any]
    answer: Any


class Difference(NamedTuple):
    """Where a replay parts from what was recorded: the place of the call, and what was answered now."""

    place: int
    call: Call
    answer: Any


class Recorder:
    """Stands for a scheduler, and keeps all calls that change it, in their order."""

    def __init__(
        self, limits: Limits, policy: Policy | None = None, table: LatencyTable | None = None
    ) -> None:
        self.calls: list[Call] = []
        self._scheduler = Scheduler(limits, policy, table)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._scheduler, name)
        return partial(self._recorded, name, method) if name in _TOLD else method

    def _recorded(self, name: str, method: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Have it done, and keep it."""
        # What can be gone through only once would be empty in the replay.
        args = tuple(tuple(each) if _is_stream(each) else each for each in args)
        answer = method(*args, **named)
        self.calls.append(Call(name, args, named, answer))
        return answer


def _is_stream(value: object) -> bool:
    return hasattr(value, "__next__")


def replay(calls: Sequence[Call], scheduler: Scheduler) -> Difference | None:
    """Tell a fresh scheduler the same; gives the first call that it answers otherwise, if there is one."""
    for place, call in enumerate(calls):
        answer = getattr(scheduler, call.method)(*call.args, **call.named)
        if answer != call.answer:
            return Difference(place, call, answer)
    return None
