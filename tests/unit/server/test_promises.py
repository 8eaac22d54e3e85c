"""What could have been promised, from the scheduler to the caller: words, details of a status, a stream."""

import math
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from rootserve.client.channel import _details
from rootserve.client.errors import Promise as ClientPromise
from rootserve.client.errors import ServerError
from rootserve.client.retry import RetryPolicy
from rootserve.server.core.decisions import Declined, Infeasible, Offered
from rootserve.server.core.queue import Request
from rootserve.server.core.scheduler import Limits, Scheduler
from rootserve.server.declined import refusal_of
from rootserve.server.pending import Asked
from rootserve.server.refusals import Reason, RefusalError
from rootserve.server.wire.refuse import refuse
from rootserve.server.wire.reply import error_in_stream

REQUEST = Request(1, "nin-auto", 1, 100.0, deadline_s=100.05, floor=0.9)


def refusal(earliest_s: float, floor: float | None, retry_s: float) -> RefusalError:
    offered = Offered(Declined.INFEASIBLE, False, Infeasible(earliest_s, floor, retry_s))
    return refusal_of(offered, REQUEST, Scheduler(Limits()))


def test_it_is_told_in_words() -> None:
    made = refusal(100.0814, 0.8946, 0.02)
    assert made.reason is Reason.DEADLINE_INFEASIBLE
    assert made.message == (
        "nin-auto cannot answer within 50 ms: at the earliest 81.4 ms after the request came; with an "
        "accuracy floor of 0.8946 instead of 0.9 it could"
    )
    never = refusal(math.inf, None, math.inf)
    assert never.message == ("nin-auto cannot answer within 50 ms, and nobody knows when it could")
    assert never.retry_after_s == 5.0


class Context(SimpleNamespace):
    """Notes what a call ends with."""

    async def abort(self, code: Any, details: str, metadata: Any) -> None:
        self.code, self.details, self.metadata = code, details, metadata


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ((100.0814, 0.8946, 0.02), ClientPromise("nin-auto", pytest.approx(0.0814), 0.8946)),
        ((100.0814, None, 0.02), ClientPromise("nin-auto", pytest.approx(0.0814), None)),
        ((math.inf, None, 0.02), ClientPromise("nin-auto", None, None)),
    ],
)
async def test_the_client_reads_what_the_server_writes(
    told: tuple[float, float | None, float], expected: ClientPromise
) -> None:
    context = Context()
    await refuse(context, refusal(*told))
    assert context.code.name == "RESOURCE_EXHAUSTED"
    assert _details(context.metadata) == (pytest.approx(0.02), expected)
    assert _details((("grpc-status-details-bin", b"\xff"),)) == (None, None)
    assert _details(None) == (None, None)


def test_a_stream_tells_it_in_parameters() -> None:
    message = error_in_stream(Asked("nin-auto", "id"), refusal(100.08, 0.8946, 0.02))
    told = message.infer_response.parameters
    assert message.error_message.startswith("[RESOURCE_EXHAUSTED] nin-auto cannot answer")
    assert told["reason"].string_param == "DEADLINE_INFEASIBLE"
    assert told["earliest_ms"].string_param == "80.000"
    assert told["accuracy_floor_fitting"].string_param == "0.8946"
    assert told["retry_after_ns"].int64_param == 20_000_000


def test_the_client_does_not_try_again_but_tells_at_once() -> None:
    promise = ClientPromise("nin-auto", 0.08, 0.8946)
    error = ServerError("RESOURCE_EXHAUSTED", "no", 0.02, promise)
    assert RetryPolicy().wait_s(1, error, 10.0, 0.0) is None
    assert pickle.loads(pickle.dumps(error)).promise == promise


@pytest.mark.parametrize(
    ("declined", "reason", "words"),
    [
        (Declined.UNSERVED, Reason.MODEL_NOT_READY, "no variant of nin-auto that this request"),
        (Declined.QUEUE_FULL, Reason.QUEUE_FULL, "the queue of nin-auto is full"),
        (Declined.TOO_LATE, Reason.DEADLINE_LOST, "the deadline had passed"),
        (Declined.TOO_MANY_ROWS, Reason.INVALID_REQUEST, "at most 32 are computed at once"),
    ],
)
def test_each_reason_to_decline_has_its_words(
    declined: Declined, reason: Reason, words: str
) -> None:
    made = refusal_of(Offered(declined, False), REQUEST, Scheduler(Limits()))
    assert made.reason is reason
    assert words in made.message
    assert made.promise is None
