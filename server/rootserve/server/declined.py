"""Why the scheduler does not take a request, in words for its caller."""

from __future__ import annotations

import math

from rootserve.server.core.decisions import Declined, Infeasible, Offered
from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Scheduler
from rootserve.server.refusals import Promise, Reason, RefusalError

# When nothing is known of how long batches take.
_RETRY_AFTER_S = 0.1
# Things change meanwhile, as when a worker is replaced.
_LONGEST_RETRY_S = 5.0


def retry_after_s(scheduler: Scheduler, model: str) -> float:
    """After how many seconds there may be room for a request for ``model``."""
    return scheduler.backlog_s(model) or _RETRY_AFTER_S


def refusal_of(offered: Offered, request: Request, scheduler: Scheduler) -> RefusalError:
    """What the caller of ``request`` is told, which ``scheduler`` declined as ``offered`` says."""
    limits = scheduler.limits
    declined = offered.declined
    assert declined is not None
    match declined:
        case Declined.QUEUE_FULL:
            queued = scheduler.rows_queued(request.model)
            text = (
                f"the queue of {request.model} is full: {queued} rows wait, {request.rows} more "
                f"came, the limit is {limits.max_queue_rows} for each priority"
            )
            return RefusalError(Reason.QUEUE_FULL, text, retry_after_s(scheduler, request.model))
        case Declined.TOO_LATE:
            text = "the deadline had passed when the request came"
            return RefusalError(Reason.DEADLINE_LOST, text)
        case Declined.TOO_MANY_ROWS:
            most = limits.max_batch_rows
            text = f"{request.rows} rows came, at most {most} are computed at once"
            return RefusalError(Reason.INVALID_REQUEST, text)
        case Declined.UNSERVED:
            text = f"no variant of {request.model} that this request allows is ready"
            return RefusalError(Reason.MODEL_NOT_READY, text)
        case Declined.INFEASIBLE:
            assert offered.infeasible is not None
            return _infeasible(offered.infeasible, request)


def _infeasible(infeasible: Infeasible, request: Request) -> RefusalError:
    """With what could have been promised, as data and in words."""
    left_ms = (request.deadline_s - request.arrived_s) * 1e3
    earliest_s = infeasible.earliest_s - request.arrived_s
    promise = Promise(request.model, earliest_s, infeasible.floor)
    text = f"{request.model} cannot answer within {left_ms:.4g} ms"
    if math.isfinite(earliest_s):
        text += f": at the earliest {earliest_s * 1e3:.4g} ms after the request came"
    else:
        text += ", and nobody knows when it could"
    if infeasible.floor is not None and infeasible.floor < request.floor:
        text += (
            f"; with an accuracy floor of {infeasible.floor} instead of {request.floor} it could"
        )
    return RefusalError(
        Reason.DEADLINE_INFEASIBLE,
        text,
        min(max(0.0, infeasible.retry_s), _LONGEST_RETRY_S),
        promise=promise,
    )
