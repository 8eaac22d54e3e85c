"""When a failed call is made again, by table."""

import pickle

import pytest

from rootserve.client.errors import ServerError
from rootserve.client.retry import NO_RETRIES, RetryPolicy

POLICY = RetryPolicy(attempts=4, first_s=0.1, longest_s=1.0)


@pytest.mark.parametrize(
    ("attempt", "error", "left_s", "wait_s"),
    [
        (1, ServerError("RESOURCE_EXHAUSTED", "", 0.3), 10, 0.3),
        (3, ServerError("RESOURCE_EXHAUSTED", "", 0.3), 10, 0.3),
        (4, ServerError("RESOURCE_EXHAUSTED", "", 0.3), 10, None),
        # A message that is too large is so the next time as well.
        (1, ServerError("RESOURCE_EXHAUSTED", ""), 10, None),
        (1, ServerError("RESOURCE_EXHAUSTED", "", 2.0), 10, None),
        (1, ServerError("RESOURCE_EXHAUSTED", "", 0.0), 10, 0.0),
        (1, ServerError("UNAVAILABLE", ""), 10, 0.1),
        (2, ServerError("UNAVAILABLE", ""), 10, 0.2),
        (3, ServerError("UNAVAILABLE", ""), 10, 0.4),
        (3, ServerError("UNAVAILABLE", ""), 0.4, None),
        (1, ServerError("UNAVAILABLE", "", 0.7), 10, 0.7),
        (1, ServerError("INTERNAL", ""), 10, None),
        (1, ServerError("DEADLINE_EXCEEDED", ""), 10, None),
    ],
)
def test_waits(attempt: int, error: ServerError, left_s: float, wait_s: float | None) -> None:
    assert POLICY.wait_s(attempt, error, left_s, 0.0) == wait_s
    if wait_s is not None:
        assert POLICY.wait_s(attempt, error, 10, 1.0) == pytest.approx(1.2 * wait_s)
    assert NO_RETRIES.wait_s(attempt, error, left_s, 0.0) is None


def test_an_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(ServerError("INTERNAL", "words", 0.5)))
    assert (error.code, error.details, error.retry_after_s) == ("INTERNAL", "words", 0.5)
    assert str(error) == "INTERNAL: words"
