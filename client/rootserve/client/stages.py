"""The stages of a request, each declared once: what it is called, who tells it, what it means, its colour."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """One stretch of a request's time.

    Attributes:
        name: In reports, and with `_s` in `rootserve.client.wire.Timeline`.
        title: As people read it.
        words: What it means.
        colours: In drawings, on light and on dark paper.
        parameter: Of the answer, in which the server tells it; None for what the client finds out itself.
        within: Name of the stage that this one is a part of; the others add up to the response time.
    """

    name: str
    title: str
    words: str
    colours: tuple[str, str]
    parameter: str | None = None
    within: str | None = None


# In the order in which a request passes them.
# fmt: off
STAGES = (
    Stage("client_wait", "client wait",
          "due, and not yet sent: the client was late or had its limit under way",
          ("#c8324a", "#f0647a")),
    Stage("outside_server", "network and gRPC",
          "service time less the server's own total: network, gRPC on both sides",
          ("#8b95a1", "#8a95a1")),
    Stage("queue", "queue", "from its arrival in the server, before it is parsed, until its batch was closed",
          ("#e58a1f", "#f0a04b"), "queue_ns"),
    Stage("batch_wait", "batch wait", "from there until a worker began to compute the batch",
          ("#e3c12f", "#ecd35a"), "batch_wait_ns"),
    Stage("compute", "compute", "the computation of the whole batch",
          ("#2f7fd0", "#5aa5ee"), "compute_ns"),
    Stage("decode", "decode", "of the computation: the decoding of pictures that came as files",
          ("#7b5cc4", "#a78bea"), "decode_ns", within="compute"),
    Stage("rest", "rest of server", "what is left of the server's total: hand-over and reply",
          ("#2aa198", "#4cc3b8")),
)
# fmt: on
TOLD = tuple(stage for stage in STAGES if stage.parameter)
"""Those the server tells."""


def total_s(stages: Mapping[str, float]) -> float:
    """The response time that stages add up to."""
    return sum(stages.get(stage.name, 0.0) for stage in STAGES if stage.within is None)


def apart(stages: Mapping[str, float], stage: Stage) -> float:
    """What a stage took without those that are parts of it: these add up as well."""
    parts = sum(stages.get(each.name, 0.0) for each in STAGES if each.within == stage.name)
    return max(0.0, stages.get(stage.name, 0.0) - parts)
