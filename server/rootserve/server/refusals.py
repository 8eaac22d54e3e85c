"""Why a request was not answered: the one list of reasons of the domain."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Reason(Enum):
    """Why a request got no answer; the value is the label it is counted under."""

    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
    INVALID_REQUEST = "invalid_request"
    UNKNOWN_MODEL = "unknown_model"
    UNKNOWN_LAYER = "unknown_layer"
    UNKNOWN_SERVICE = "unknown_service"
    """Health was asked of it."""
    UNKNOWN_DATASET = "unknown_dataset"
    MODEL_NOT_READY = "model_not_ready"
    QUEUE_FULL = "queue_full"
    MEMORY_FULL = "memory_full"
    """What callers send takes more memory than it may."""
    MESSAGE_TOO_LARGE = "message_too_large"
    ANALYSES_FULL = "analyses_full"
    """As many analyses run as may."""
    DEADLINE_LOST = "deadline_lost"
    """The deadline had passed when the request came."""
    DEADLINE_INFEASIBLE = "deadline_infeasible"
    """No variant that may compute the request would be in time for its deadline."""
    DEADLINE_EXPIRED = "deadline_expired"
    """The deadline passed while the request waited."""
    CANCELLED = "cancelled"
    DRAINING = "draining"
    NOT_IMPLEMENTED = "not_implemented"
    """The protocol has the method, this service does not."""
    CONTROL_OFF = "control_off"
    """Models are not loaded on request here."""
    EXPLAIN_OFF = "explain_off"
    """No requests are kept to be explained."""
    UNKNOWN_REQUEST = "unknown_request"
    """It is not among those that are kept."""
    SHARED_MEMORY_OFF = "shared_memory_off"
    UNKNOWN_REGION = "unknown_region"
    """No shared memory is registered under that name."""
    ALREADY_REGISTERED = "already_registered"
    REGIONS_FULL = "regions_full"
    LOAD_FAILED = "load_failed"
    """A model could not be loaded on request; what ran before goes on."""
    INTERNAL_ERROR = "internal_error"
    """The service itself is at fault."""
    MODEL_FAILURE = "model_failure"
    WORKER_LOST = "worker_lost"
    """The worker that computed it died, and so did the one that tried again."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What could have been promised to a request whose deadline could not be kept."""

    model: str
    """What it asked for."""
    earliest_s: float
    """The earliest answer, in seconds from its arrival; infinite where nobody knows."""
    floor: float | None
    """The highest accuracy floor that would have fitted its deadline; None if none would."""


class RefusalError(Exception):
    """A request will not be answered: why, one line for the caller, and when to try again.

    ``worker`` is the one it failed on, if it got that far. ``promise`` is what it could have had instead.
    ``told``: the observers know of it.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        retry_after_s: float | None = None,
        worker: str = "",
        promise: Promise | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s
        self.worker = worker
        self.promise = promise
        self.told = False
